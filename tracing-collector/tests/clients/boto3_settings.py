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


def declared(xray):
    assert xray.get_encryption_config()["EncryptionConfig"] == {"Type": "NONE", "Status": "ACTIVE"}
    config = xray.put_encryption_config(Type="KMS", KeyId="alias/traces")["EncryptionConfig"]
    assert config["Status"] == "UPDATING", config
    refused("InvalidRequestException", xray.put_encryption_config, Type="KMS")
    document = '{"Version": "2012-10-17", "Statement": []}'
    policy = xray.put_resource_policy(PolicyName="sns", PolicyDocument=document)["ResourcePolicy"]
    assert policy["PolicyRevisionId"] == "1", policy
    refused("MalformedPolicyDocumentException", xray.put_resource_policy, PolicyName="x", PolicyDocument="{")
    stale = {"PolicyName": "sns", "PolicyDocument": document, "PolicyRevisionId": "7"}
    refused("InvalidPolicyRevisionIdException", xray.put_resource_policy, **stale)
    refused("PolicySizeLimitExceededException", xray.put_resource_policy, PolicyName="x", PolicyDocument=" " * 6000)
    xray.put_resource_policy(PolicyName="other", PolicyDocument=document)
    xray.delete_resource_policy(PolicyName="other")
    rule = xray.update_indexing_rule(Name="Default", Rule={"Probabilistic": {"DesiredSamplingPercentage": 5}})
    assert rule["IndexingRule"]["Rule"]["Probabilistic"]["DesiredSamplingPercentage"] == 5, rule
    none = {"Name": "none", "Rule": {"Probabilistic": {"DesiredSamplingPercentage": 5}}}
    refused("ResourceNotFoundException", xray.update_indexing_rule, **none)
    assert xray.get_trace_segment_destination()["Destination"] == "XRay"
    xray.update_trace_segment_destination(Destination="CloudWatchLogs")


def retrieval(xray):
    trace, span = "1-65000000-" + "0" * 23 + "9", "00000000000000aa"
    document = f'{{"trace_id":"{trace}","id":"{span}","name":"app","start_time":1700000000,"end_time":1700000001}}'
    xray.put_trace_segments(TraceSegmentDocuments=[document])
    asked = {"TraceIds": [trace], "StartTime": 1699999000, "EndTime": 1700001000}
    token = xray.start_trace_retrieval(**asked)["RetrievalToken"]
    for form in ["XRAY", "OTEL"]:
        answer = xray.list_retrieved_traces(RetrievalToken=token, TraceFormat=form)
        assert (answer["RetrievalStatus"], answer["TraceFormat"]) == ("COMPLETE", form), answer
        (found,) = answer["Traces"]
        assert (found["Id"], found["Duration"], found["Spans"][0]["Id"]) == (trace, 1.0, span), found
    graph = xray.get_retrieved_traces_graph(RetrievalToken=token)
    assert sorted(one["Service"]["Type"] for one in graph["Services"]) == ["client", "unknown"], graph
    xray.cancel_trace_retrieval(RetrievalToken=token)
    assert xray.list_retrieved_traces(RetrievalToken=token)["RetrievalStatus"] == "CANCELLED"
    refused("ResourceNotFoundException", xray.list_retrieved_traces, RetrievalToken="none")


def configure(xray):
    declared(xray)
    retrieval(xray)
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
    assert xray.get_encryption_config()["EncryptionConfig"]["KeyId"] == "alias/traces"
    assert [one["PolicyName"] for one in xray.list_resource_policies()["ResourcePolicies"]] == ["sns"]
    (rule,) = xray.get_indexing_rules()["IndexingRules"]
    assert rule["Rule"]["Probabilistic"]["DesiredSamplingPercentage"] == 5, rule
    assert xray.get_trace_segment_destination()["Destination"] == "CloudWatchLogs"


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
