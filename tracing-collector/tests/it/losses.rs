// SPDX-License-Identifier: Apache-2.0
//! Received is stored plus rejected plus dropped, the kernel's drops included.

use std::net::UdpSocket;

use serde_json::Value;

use crate::collector::Collector;
use crate::collector::eventually;
use crate::collector::segment;

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

#[test]
fn datagrams_that_the_kernel_had_to_drop_are_counted_to_the_last_one() {
    let collector = Collector::start();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let padding = "x".repeat(20_000);
    // Stopped, it reads nothing, so that its buffer overflows; 3000 of these are more than any buffer we ask for.
    collector.signal("-STOP");
    let sent = 3000;
    for id in 0..sent {
        let mut document = segment(id, "app", 0.1);
        document["metadata"] = serde_json::json!({"default": {"padding": padding}});
        let datagram = format!("{{\"format\":\"json\",\"version\":1}}\n{document}");
        socket
            .send_to(datagram.as_bytes(), collector.addr("xray_udp"))
            .expect("sent");
    }
    collector.signal("-CONT");
    let counts = eventually("every datagram accounted for", || {
        let counts = collector.stats()["sources"]["xray_udp"].clone();
        let accounted = number(&counts["stored"])
            + number(&counts["dropped"]["kernel"])
            + number(&counts["dropped"]["queue_full"]);
        (accounted == sent).then_some(counts)
    });
    assert_eq!(number(&counts["received"]), sent);
    assert!(number(&counts["dropped"]["kernel"]) > 0, "{counts}");
    assert!(number(&counts["stored"]) > 0, "{counts}");
}
