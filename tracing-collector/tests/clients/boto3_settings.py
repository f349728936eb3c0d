# SPDX-License-Identifier: Apache-2.0
"""An unmodified boto3 configures what is configured through the X-Ray API, or finds it. Arguments: endpoint, phase."""

import sys

import boto3
from botocore.exceptions import ClientError

RULE = {
    "RuleName": "checkout",
    "ResourceARN": "*",
    "Priority": 10,
    "FixedRate": 0.5,
    "ReservoirSize": 5,
    "ServiceName": "*",
    "ServiceType": "*",
    "Host": "*",
    "HTTPMethod": "POST",
    "URLPath": "/checkout/*",
    "Version": 1,
}


def refused(code, call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        assert error.response["Error"]["Code"] == code, error.response
    else:
        raise SystemExit(f"accepted: {arguments}")


def rules(xray):
    return [one["SamplingRule"] for one in xray.get_sampling_rules()["SamplingRuleRecords"]]


def targets(xray, client, requests):
    document = {"RuleName": "checkout", "ClientID": client, "Timestamp": 1700000000}
    document |= {"RequestCount": requests, "SampledCount": 1, "BorrowCount": 1}
    return xray.get_sampling_targets(SamplingStatisticsDocuments=[document])


def sampling(xray):
    record = xray.create_sampling_rule(SamplingRule=RULE, Tags=[{"Key": "team", "Value": "shop"}])
    rule = record["SamplingRuleRecord"]["SamplingRule"]
    assert rule["RuleARN"].endswith(":sampling-rule/checkout"), rule
    assert xray.list_tags_for_resource(ResourceARN=rule["RuleARN"])["Tags"] == [{"Key": "team", "Value": "shop"}]
    refused("InvalidRequestException", xray.create_sampling_rule, SamplingRule=RULE)
    first = targets(xray, "A" * 24, 10)
    assert first["SamplingTargetDocuments"][0]["ReservoirQuota"] == 5, first
    assert targets(xray, "B" * 24, 5)["SamplingTargetDocuments"][0]["ReservoirQuota"] == 2
    assert targets(xray, "A" * 24, 10)["SamplingTargetDocuments"][0]["ReservoirQuota"] == 3
    changed = xray.update_sampling_rule(SamplingRuleUpdate={"RuleName": "checkout", "FixedRate": 0.25})
    assert changed["SamplingRuleRecord"]["SamplingRule"]["FixedRate"] == 0.25
    later = targets(xray, "A" * 24, 10)
    assert later["LastRuleModification"] >= first["LastRuleModification"]
    assert later["SamplingTargetDocuments"][0]["FixedRate"] == 0.25
    summaries = xray.get_sampling_statistic_summaries()["SamplingStatisticSummaries"]
    assert sum(one["RequestCount"] for one in summaries) == 35, summaries
    xray.create_sampling_rule(SamplingRule={**RULE, "RuleName": "gone", "Priority": 1})
    assert [one["RuleName"] for one in rules(xray)] == ["gone", "checkout", "Default"]
    xray.delete_sampling_rule(RuleName="gone")
    refused("InvalidRequestException", xray.delete_sampling_rule, RuleName="Default")
    refused(
        "InvalidRequestException", xray.update_sampling_rule, SamplingRuleUpdate={"RuleName": "Default", "Priority": 5}
    )
    xray.update_sampling_rule(SamplingRuleUpdate={"RuleName": "Default", "FixedRate": 0.1, "ReservoirSize": 2})
    refused("InvalidRequestException", xray.create_sampling_rule, SamplingRule={**RULE, "RuleName": "x", "FixedRate": 2})


def tags(xray):
    group = xray.create_group(
        GroupName="web", FilterExpression='service("web")', Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}]
    )["Group"]
    arn = group["GroupARN"]
    xray.tag_resource(ResourceARN=arn, Tags=[{"Key": "b", "Value": "3"}])
    xray.untag_resource(ResourceARN=arn, TagKeys=["a"])
    assert xray.list_tags_for_resource(ResourceARN=arn)["Tags"] == [{"Key": "b", "Value": "3"}]
    refused("ResourceNotFoundException", xray.list_tags_for_resource, ResourceARN="arn:aws:xray:nowhere")


def configure(xray):
    sampling(xray)
    tags(xray)
    xray.put_telemetry_records(TelemetryRecords=[{"Timestamp": 1700000000, "SegmentsReceivedCount": 1}])


def again(xray):
    by_name = {one["RuleName"]: one for one in rules(xray)}
    assert list(by_name) == ["checkout", "Default"], by_name
    assert by_name["checkout"]["FixedRate"] == 0.25 and by_name["Default"]["ReservoirSize"] == 2, by_name
    group = xray.get_group(GroupName="web")["Group"]
    assert group["FilterExpression"] == 'service("web")', group
    assert [one["GroupName"] for one in xray.get_groups()["Groups"]] == ["Default", "web"]
    assert xray.list_tags_for_resource(ResourceARN=group["GroupARN"])["Tags"] == [{"Key": "b", "Value": "3"}]


def main(endpoint, phase):
    xray = boto3.client(
        "xray",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    {"configure": configure, "again": again}[phase](xray)


main(*sys.argv[1:])
