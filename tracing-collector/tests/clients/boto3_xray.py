# SPDX-License-Identifier: Apache-2.0
"""An unmodified boto3 against the X-Ray API: put_trace_segments, then every way to read. Arguments: endpoint, fixture."""

import json
import sys
import time

import boto3
from botocore.exceptions import ClientError

ID = "1-59602603-23fc5b688855d396af79b496"


def eventually(what, check):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = check()
        if found:
            return found
        time.sleep(0.1)
    raise SystemExit(f"not within 30 s: {what}")


def main(endpoint, fixture):
    xray = boto3.client(
        "xray",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    with open(fixture, encoding="utf-8") as file:
        documents = [json.dumps(document) for document in json.load(file)]
    answer = xray.put_trace_segments(TraceSegmentDocuments=[*documents, "[]"])
    assert [one["ErrorCode"] for one in answer["UnprocessedTraceSegments"]] == ["MissingId"], answer

    window = {"StartTime": 1499473400, "EndTime": 1499473500}

    def graph():
        pages = xray.get_paginator("get_service_graph").paginate(**window)
        services = [service for page in pages for service in page["Services"]]
        return services if len(services) == 6 else None

    services = eventually("six services", graph)
    assert sum(len(service["Edges"]) for service in services) == 5
    by_id = {service["ReferenceId"]: service for service in services}
    for service in services:
        for edge in service["Edges"]:
            assert edge["ReferenceId"] in by_id
        if service["Type"] != "client":
            assert service["SummaryStatistics"]["TotalCount"] == 1, service
            assert service["ResponseTimeHistogram"], service

    pages = xray.get_paginator("get_trace_summaries").paginate(**window)
    (summary,) = [one for page in pages for one in page["TraceSummaries"]]
    assert (summary["Id"], summary["ResponseTime"]) == (ID, 3.232), summary
    assert summary["Http"]["HttpMethod"] == "POST"
    assert summary["EntryPoint"]["Name"] == "Scorekeep"

    pages = xray.get_paginator("batch_get_traces").paginate(TraceIds=[ID])
    (trace,) = [one for page in pages for one in page["Traces"]]
    assert len(trace["Segments"]) == 5 and trace["Duration"] == 3.232, trace

    assert xray.get_groups()["Groups"][0]["GroupName"] == "Default"
    assert xray.get_sampling_rules()["SamplingRuleRecords"][0]["SamplingRule"]["RuleName"] == "Default"
    try:
        xray.get_trace_summaries(**window, FilterExpression="fault AND")
    except ClientError as error:
        assert error.response["Error"]["Code"] == "InvalidRequestException", error.response
        assert "offset 9" in error.response["Error"]["Message"], error.response
    else:
        raise SystemExit("half a filter expression was accepted")


main(*sys.argv[1:])
