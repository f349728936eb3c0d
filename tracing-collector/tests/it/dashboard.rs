// SPDX-License-Identifier: Apache-2.0
//! The page at `/`: there with or without a build, under a strict policy.

use crate::collector::Collector;

#[test]
fn the_first_page_is_served_under_a_strict_policy() {
    let collector = Collector::start();
    for path in ["/", "/traces"] {
        let answer = collector.send("api", "GET", path, &[], b"");
        assert_eq!(answer.status, 200, "{path}");
        assert!(String::from_utf8_lossy(&answer.body).contains("Pillion"));
        let policy = answer
            .headers
            .get("content-security-policy")
            .expect("a policy");
        assert!(
            policy.contains("default-src 'none'") && !policy.contains("unsafe"),
            "{policy}"
        );
        assert_eq!(
            answer
                .headers
                .get("x-content-type-options")
                .map(String::as_str),
            Some("nosniff")
        );
    }
    assert_eq!(
        collector
            .send("api", "GET", "/assets/none.js", &[], b"")
            .status,
        404
    );
    assert_eq!(
        collector
            .send("api", "GET", "/../../etc/passwd", &[], b"")
            .status,
        200,
        "the page, not the file"
    );
}

#[test]
fn the_daemons_port_serves_no_dashboard() {
    let collector = Collector::start();
    for path in ["/", "/index.html", "/traces"] {
        let answer = collector.send("xray_tcp", "GET", path, &[], b"");
        assert_eq!(answer.status, 404, "{path}");
    }
    assert_eq!(
        collector
            .send("xray_tcp", "POST", "/GetSamplingRules", &[], b"{}")
            .status,
        200
    );
}
