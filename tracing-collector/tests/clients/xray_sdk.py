# SPDX-License-Identifier: Apache-2.0
"""The unmodified X-Ray SDK: segments over UDP, sampling rules and targets over TCP of the same port. Arguments: daemon
address, API endpoint."""

import json
import sys
import time
import urllib.error
import urllib.request

from aws_xray_sdk.core import xray_recorder
from aws_xray_sdk.core.sampling.connector import ServiceConnector


def check_sampling(daemon):
    host, port = daemon.rsplit(":", 1)
    connector = ServiceConnector()
    connector.setup_xray_client(host, port, None)
    rules = connector.fetch_sampling_rules()
    assert [rule.name for rule in rules] == ["Default"], rules
    rule = rules[0]
    rule.increment_request_count()
    targets, _ = connector.fetch_sampling_target([rule])
    assert targets["Default"]["rate"] == 0.05 and targets["Default"]["quota"] == 1, targets


def main(daemon, api):
    xray_recorder.configure(daemon_address=daemon, sampling=False, service="legacy", context_missing="LOG_ERROR")
    segment = xray_recorder.begin_segment("legacy")
    segment.put_annotation("order", 7)
    segment.put_metadata("cart", {"items": [1, 2]}, "shop")
    subsegment = xray_recorder.begin_subsegment("db.example.com", namespace="remote")
    subsegment.put_http_meta("status", 503)
    xray_recorder.end_subsegment()
    xray_recorder.end_segment()

    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(f"{api}/pillion/v1/traces/{segment.trace_id}") as answer:
                trace = json.load(answer)
                break
        except urllib.error.HTTPError as error:
            if error.code != 404 or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
    names = {(span["name"], span["service"], span["outcome"]) for span in trace["spans"]}
    assert names == {("legacy", "legacy", "ok"), ("db.example.com", "legacy", "fault")}, names
    assert trace["spans"][0]["attributes"]["order"] == 7, trace
    check_sampling(daemon)


main(*sys.argv[1:])
