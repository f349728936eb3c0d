# SPDX-License-Identifier: Apache-2.0
"""Signed requests of unmodified clients: argv is the endpoint and the aws program."""
import os
import subprocess
import sys
import urllib.error
import urllib.request

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

endpoint, aws = sys.argv[1:3]
ONCE = Config(retries={"max_attempts": 1})


def client(key, secret, region="us-east-1", token=None):
    return boto3.client(
        "appmesh", endpoint_url=endpoint, region_name=region, config=ONCE,
        aws_access_key_id=key, aws_secret_access_key=secret, aws_session_token=token,
    )


def refused(code, call):
    try:
        call()
    except ClientError as error:
        assert error.response["Error"]["Code"] == code, error.response
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 403, error.response
        return error.response["Error"]["Message"]
    raise AssertionError(f"{code} was not raised")


admin = client("ADMIN", "secret-of-ADMIN")
admin.create_mesh(meshName="mäsh 1+2", tags=[{"key": "a b", "value": "c/d"}])
assert admin.describe_mesh(meshName="mäsh 1+2")["mesh"]["metadata"]["version"] == 1
arn = admin.describe_mesh(meshName="mäsh 1+2")["mesh"]["metadata"]["arn"]
assert admin.list_tags_for_resource(resourceArn=arn, limit=5)["tags"] == [{"key": "a b", "value": "c/d"}]
client("ADMIN", "secret-of-ADMIN", token="of-a-role").list_meshes()

refused("UnrecognizedClientException", client("NOBODY", "x").list_meshes)
message = refused("InvalidSignatureException", client("ADMIN", "wrong").list_meshes)
assert message.startswith("The request signature we calculated does not match"), message
message = refused("InvalidSignatureException", client("ADMIN", "secret-of-ADMIN", region="eu-west-1").list_meshes)
assert "us-east-1" in message, message
reader = client("READER", "secret-of-READER")
reader.list_meshes()
try:
    reader.delete_mesh(meshName="mäsh 1+2")
    raise AssertionError("a reader deleted")
except reader.exceptions.ForbiddenException as error:
    assert "appmesh:DeleteMesh" in str(error), error

url = admin.generate_presigned_url("describe_mesh", Params={"meshName": "mäsh 1+2"}, ExpiresIn=60)
with urllib.request.urlopen(url) as answer:
    assert answer.status == 200
try:
    urllib.request.urlopen(url.replace("Expires=60", "Expires=6000"))
    raise AssertionError("a changed URL was taken")
except urllib.error.HTTPError as error:
    assert error.code == 403 and error.headers["x-amzn-errortype"] == "InvalidSignatureException"


def cli(secret):
    environment = {
        **os.environ, "AWS_ACCESS_KEY_ID": "ADMIN", "AWS_SECRET_ACCESS_KEY": secret, "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }
    command = [aws, "--endpoint-url", endpoint, "appmesh", "list-meshes"]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


assert cli("secret-of-ADMIN").returncode == 0, cli("secret-of-ADMIN").stderr
assert "InvalidSignatureException" in cli("wrong").stderr
print("all as by AWS")
