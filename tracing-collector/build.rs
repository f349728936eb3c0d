// SPDX-License-Identifier: Apache-2.0
//! Embeds the dashboard anew when it was built anew. Only releases embed it; other profiles read it where it lies.
#![allow(clippy::print_stdout, reason = "cargo reads a build script's stdout")]

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        println!("cargo:rerun-if-changed=../dashboard/dist");
    }
}
