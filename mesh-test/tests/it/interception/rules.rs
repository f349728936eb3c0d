// SPDX-License-Identifier: Apache-2.0
//! `pillion-proxy intercept` against the kernel: what stands there afterwards, twice, removed, and without privilege.

use std::os::unix::process::CommandExt;
use std::process::Command;

use mesh_test::pod::Pod;
use mesh_test::pod::in_pod;
use mesh_test::pod::tool;
use mesh_test::program::built;

use super::intercept;

/// Reference of the ECS plugin, as `iptables -S` prints it.
const EXPECTED: &str = "\
-N APPMESH_EGRESS
-N APPMESH_INGRESS
-A PREROUTING -p tcp -m addrtype ! --src-type LOCAL -j APPMESH_INGRESS
-A OUTPUT -p tcp -m addrtype ! --dst-type LOCAL -j APPMESH_EGRESS
-A APPMESH_EGRESS -m owner --uid-owner 1337 -j RETURN
-A APPMESH_EGRESS -p tcp -m multiport --dports 22,2049 -j RETURN
-A APPMESH_EGRESS -d 169.254.170.2/32 -p tcp -j RETURN
-A APPMESH_EGRESS -d 169.254.169.254/32 -p tcp -j RETURN
-A APPMESH_EGRESS -p tcp -j REDIRECT --to-ports 15001
-A APPMESH_INGRESS -p tcp -m multiport --dports 8080,8443 -j REDIRECT --to-ports 15000
";

fn standing(program: &str) -> anyhow::Result<String> {
    let all = tool(program, &["-t", "nat", "-S"])?;
    let ours = all.lines().filter(|line| !line.starts_with("-P"));
    Ok(ours.map(|line| format!("{line}\n")).collect())
}

#[test]
fn installing_twice_leaves_one_set_of_rules_and_removing_none() -> anyhow::Result<()> {
    in_pod(async |_: Pod| {
        let arguments = [
            "--app-ports",
            "8080,8443",
            "--ignore-uid",
            "1337",
            "--egress-ignored-ports",
            "22,2049",
            "--egress-ignored-ips",
            "169.254.170.2,169.254.169.254",
            "--ipv6",
        ];
        let foreign = [
            "-t", "nat", "-A", "OUTPUT", "-p", "tcp", "--dport", "1", "-j", "RETURN",
        ];
        intercept(&arguments)?;
        intercept(&arguments)?;
        assert_eq!(standing("iptables")?, EXPECTED);
        assert!(standing("ip6tables")?.contains("--uid-owner 1337"));

        tool("iptables", &foreign)?;
        intercept(&["--remove", "--ipv6"])?;
        intercept(&["--remove", "--ipv6"])?;
        let left = "-A OUTPUT -p tcp -m tcp --dport 1 -j RETURN\n";
        assert_eq!(standing("iptables")?, left, "only what another put there");
        assert_eq!(standing("ip6tables")?, "");
        Ok(())
    })
}

#[test]
fn app_meshs_environment_is_read_and_a_dry_run_changes_nothing() -> anyhow::Result<()> {
    in_pod(async |_: Pod| {
        let output = Command::new(built("pillion-proxy")?)
            .args(["intercept", "--dry-run"])
            .env("APPMESH_APP_PORTS", "8080")
            .env("APPMESH_IGNORE_UID", "1337")
            .env("APPMESH_ENVOY_INGRESS_PORT", "15000")
            .env("APPMESH_ENVOY_EGRESS_PORT", "15001")
            .env("APPMESH_EGRESS_IGNORED_IP", "169.254.169.254")
            .env("APPMESH_EGRESS_IGNORED_PORTS", "22")
            .env("APPMESH_ENABLE_IPV6", "1")
            .output()?;
        let printed = String::from_utf8(output.stdout)?;
        assert!(output.status.success());
        for part in [
            "--dports 8080 -j REDIRECT --to-ports 15000",
            "--dports 22 -j RETURN",
            "ip6tables-restore",
        ] {
            assert!(printed.contains(part), "{part} is missing in {printed}");
        }
        assert_eq!(standing("iptables")?, "");
        // What was printed is what a shell can run.
        tool("sh", &["-c", &printed])?;
        assert!(standing("iptables")?.contains("-d 169.254.169.254/32"));
        Ok(())
    })
}

#[test]
fn without_privilege_or_user_it_says_what_is_needed() -> anyhow::Result<()> {
    in_pod(async |_: Pod| {
        let nobody = Command::new(built("pillion-proxy")?)
            .args(["intercept", "--app-ports", "15000,x"])
            .output()?;
        let said = String::from_utf8(nobody.stderr)?;
        assert_eq!(nobody.status.code(), Some(2));
        for part in ["--ignore-uid", "\"x\": is not a port", "--ingress-port"] {
            assert!(said.contains(part), "{part} is missing in {said}");
        }

        let dir = tempfile::tempdir()?;
        let copy = dir.path().join("pillion-proxy");
        std::fs::copy(built("pillion-proxy")?, &copy)?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(dir.path(), mode)?;
        let denied = Command::new(&copy)
            .args(["intercept", "--ignore-uid", "1337"])
            .uid(1337)
            .output()?;
        let said = String::from_utf8(denied.stderr)?;
        assert_eq!(denied.status.code(), Some(1));
        assert!(said.contains("run as root or with CAP_NET_ADMIN"), "{said}");
        Ok(())
    })
}
