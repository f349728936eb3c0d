# SPDX-License-Identifier: Apache-2.0
"""An unmodified boto3 finds a fault anomaly in replayed hours, in every one of the four ways. Arguments: endpoint."""

import json
import sys
import time

import boto3
from botocore.exceptions import ClientError

START = 1_700_000_040  # a whole minute


def request(minute, number, failed):
    at = START + 60 * minute + number
    trace = f"1-{at:08x}-{minute * 100 + number:024x}"
    call = {
        "id": f"{0xA000000 + minute * 100 + number:016x}",
        "name": "orders",
        "namespace": "remote",
        "start_time": at + 0.1,
        "end_time": at + 0.2,
        "fault": failed,
    }
    return json.dumps(
        {
            "trace_id": trace,
            "id": f"{0xB000000 + minute * 100 + number:016x}",
            "name": "web",
            "start_time": at,
            "end_time": at + 0.3,
            "fault": failed,
            "http": {"request": {"method": "GET", "url": "http://web/"}, "response": {"status": 500 if failed else 200}},
            "subsegments": [call],
        }
    )


def replay(xray, first, last, failing):
    for minute in range(first, last):
        documents = [request(minute, number, failing and number % 2 == 0) for number in range(10)]
        assert xray.put_trace_segments(TraceSegmentDocuments=documents)["UnprocessedTraceSegments"] == []


def summaries(xray, **more):
    asked = {"StartTime": START, "EndTime": START + 7200, "GroupName": "shop"} | more
    return xray.get_insight_summaries(**asked)["InsightSummaries"]


def main(endpoint):
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    xray = boto3.client("xray", endpoint_url=endpoint, region_name="us-east-1", **keys)
    config = {"InsightsEnabled": True, "NotificationsEnabled": True}
    xray.create_group(GroupName="shop", FilterExpression='service("web")', InsightsConfiguration=config)
    replay(xray, 0, 30, False)
    replay(xray, 30, 36, True)
    replay(xray, 36, 50, False)
    deadline = time.time() + 30
    while True:
        found = summaries(xray)
        if found and found[0]["State"] == "CLOSED" and found[0]["RootCauseServiceRequestImpactStatistics"]["TotalCount"] == 60:
            break
        assert time.time() < deadline, found
        time.sleep(0.1)
    (summary,) = found
    assert summary["RootCauseServiceId"]["Name"] == "orders", summary
    assert summary["Categories"] == ["FAULT"] and summary["GroupName"] == "shop", summary
    assert summary["StartTime"].timestamp() == START + 30 * 60, summary
    assert summary["EndTime"].timestamp() == START + 36 * 60, summary
    impact = {"FaultCount": 30, "OkCount": 30, "TotalCount": 60}
    assert summary["ClientRequestImpactStatistics"] == impact, summary
    assert summary["RootCauseServiceRequestImpactStatistics"] == impact, summary
    assert [one["ServiceId"]["Name"] for one in summary["TopAnomalousServices"]] == ["orders", "web"], summary
    assert summary["Summary"].count(". ") == 1 and summary["LastUpdateTime"], summary
    assert summaries(xray, States=["ACTIVE"]) == []

    identity = summary["InsightId"]
    insight = xray.get_insight(InsightId=identity)["Insight"]
    assert insight["State"] == "CLOSED" and insight["GroupARN"].endswith(summary["GroupARN"]), insight
    events = xray.get_insight_events(InsightId=identity)["InsightEvents"]
    assert [one["EventTime"] for one in events] == sorted((one["EventTime"] for one in events), reverse=True)
    assert len(events) == 2 and events[-1]["TopAnomalousServices"], events
    window = {"StartTime": START + 1800, "EndTime": START + 2400}
    graph = xray.get_insight_impact_graph(InsightId=identity, **window)
    names = {one["ReferenceId"]: (one["Name"], one["Type"]) for one in graph["Services"]}
    edges = {(names[one["ReferenceId"]], names[edge["ReferenceId"]]) for one in graph["Services"] for edge in one["Edges"]}
    web = ("web", "unknown")
    assert edges == {(("web", "client"), web), (web, ("orders", "remote"))}, edges

    for wrong in [{"InsightId": "00000000-0000-0000-0000-000000000000"}]:
        try:
            xray.get_insight(**wrong)
        except ClientError as error:
            assert error.response["Error"]["Code"] == "InvalidRequestException", error.response
        else:
            raise SystemExit("an insight that is not there was found")
    forecast = xray.get_time_series_service_statistics(
        StartTime=START + 1800,
        EndTime=START + 1860,
        EntitySelectorExpression='service(id(name: "orders", type: "remote"))',
        Period=60,
        ForecastStatistics=True,
    )
    (point,) = forecast["TimeSeriesServiceStatistics"]
    expected = point["ServiceForecastStatistics"]
    assert expected["FaultCountLow"] == 0 < expected["FaultCountHigh"] < 5, point


main(*sys.argv[1:])
