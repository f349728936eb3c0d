// SPDX-License-Identifier: Apache-2.0
//! The judges: an unmodified `boto3` and `aws` command line against the built binary.

use std::path::PathBuf;
use std::process::Command;

use crate::control_plane::ControlPlane;

/// The folder of foreign clients, or how to make it.
pub(crate) fn venv() -> PathBuf {
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let venv = std::env::var_os("PILLION_VENV")
        .map_or_else(|| workspace.join("target/venv"), PathBuf::from);
    assert!(
        venv.join("bin/python").exists() && venv.join("bin/aws").exists(),
        "no foreign clients in {}; run `cargo xtask setup`",
        venv.display()
    );
    venv
}

#[test]
fn boto3_and_the_aws_command_line_manage_every_kind() {
    let control_plane = ControlPlane::start();
    let venv = venv();
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients/appmesh_crud.py");
    let output = Command::new(venv.join("bin/python"))
        .arg(script)
        .arg(format!("http://{}", control_plane.api))
        .arg(venv.join("bin/aws"))
        .output()
        .expect("python starts");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}\n{err}");
    assert!(
        out.trim_end()
            .ends_with("38 operations by boto3, 38 by aws"),
        "{out}"
    );
}

#[test]
fn proxyless_grpc_is_routed_and_follows_a_change_of_weights() {
    let control_plane = ControlPlane::start();
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients/proxyless.py");
    let output = Command::new(venv().join("bin/python"))
        .arg(script)
        .args([control_plane.api.to_string(), control_plane.xds.to_string()])
        .output()
        .expect("python starts");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}\n{err}");
    assert!(out.trim_end().ends_with("v1 then v2"), "{out}");
}
