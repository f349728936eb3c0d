# SPDX-License-Identifier: Apache-2.0
"""boto3 with a key, a reader's key, a wrong secret and none, and the AWS CLI. Arguments: endpoint, path of the CLI."""

import os
import subprocess
import sys

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError


def client(endpoint, key, secret, region="eu-west-1", **more):
    keys = {"aws_access_key_id": key, "aws_secret_access_key": secret}
    return boto3.client("xray", endpoint_url=endpoint, region_name=region, **keys, **more)


def refused(code, call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        found = (error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"])
        assert found == (code, 403), error.response
    else:
        raise SystemExit(f"let in: {arguments}")


def main(endpoint, cli):
    trace = "1-65000000-" + "0" * 23 + "9"
    document = f'{{"trace_id":"{trace}","id":"00000000000000aa","name":"app","start_time":1700000000,"end_time":1700000001}}'
    writer = client(endpoint, "AKIAWRITER", "writer-secret")
    assert writer.put_trace_segments(TraceSegmentDocuments=[document])["UnprocessedTraceSegments"] == []
    reader = client(endpoint, "AKIAREADER", "reader-secret", region="us-east-1")
    assert reader.batch_get_traces(TraceIds=[trace])["Traces"][0]["Id"] == trace
    refused("AccessDeniedException", reader.put_trace_segments, TraceSegmentDocuments=[document])
    refused("AccessDeniedException", reader.create_group, GroupName="x")
    refused("InvalidSignatureException", client(endpoint, "AKIAREADER", "wrong").get_groups)
    refused("UnrecognizedClientException", client(endpoint, "AKIANOBODY", "x").get_groups)
    refused("AccessDeniedException", client(endpoint, "AKIAMESHES", "mesh-secret").get_groups)
    unsigned = client(endpoint, "x", "x", config=Config(signature_version=UNSIGNED))
    refused("MissingAuthenticationTokenException", unsigned.get_groups)
    env = os.environ | {"AWS_ACCESS_KEY_ID": "AKIAREADER", "AWS_SECRET_ACCESS_KEY": "reader-secret"}
    arguments = [cli, "--endpoint-url", endpoint, "--region", "us-east-1", "--output", "json", "xray", "get-groups"]
    listed = subprocess.run(arguments, env=env, capture_output=True, text=True)
    assert listed.returncode == 0 and '"Default"' in listed.stdout, listed


main(*sys.argv[1:])
