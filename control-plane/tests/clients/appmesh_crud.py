# SPDX-License-Identifier: Apache-2.0
"""Drives the mesh API with unmodified clients: boto3, then the aws command line. Arguments: endpoint URL, aws binary.

Every one of the 38 operations is called by both; errors must arrive as the exception types botocore has for them.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import uuid

import awscli.clidriver
import boto3
from botocore.config import Config

ENDPOINT, AWS = sys.argv[1], sys.argv[2]
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "any",
    "AWS_SECRET_ACCESS_KEY": "any",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_MAX_ATTEMPTS": "1",
    "AWS_PAGER": "",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
BY_BINARY = {"create_mesh", "update_route", "list_virtual_nodes", "untag_resource", "delete_mesh"}

PORT = {"portMapping": {"port": 8080, "protocol": "http"}}


def node(hostname):
    return {"listeners": [PORT], "serviceDiscovery": {"dns": {"hostname": hostname}}}


def route(weight):
    return {
        "priority": 10,
        "httpRoute": {
            "match": {"prefix": "/", "headers": [{"name": "x-canary", "match": {"exact": "yes"}}]},
            "action": {"weightedTargets": [{"virtualNode": "web", "weight": weight}]},
            "retryPolicy": {
                "maxRetries": 2,
                "perRetryTimeout": {"unit": "ms", "value": 2000},
                "httpRetryEvents": ["server-error"],
            },
        },
    }


def gateway_route(prefix):
    target = {"virtualService": {"virtualServiceName": "web.shop.local"}}
    return {"httpRoute": {"match": {"prefix": prefix}, "action": {"target": target}}}


# word, own name, name of what it lives under besides the mesh, spec, another spec; parents first
KINDS = [
    ("mesh", "shop", {}, {"egressFilter": {"type": "DROP_ALL"}}, {"egressFilter": {"type": "ALLOW_ALL"}}),
    ("virtualNode", "web", {}, node("web.local"), node("127.0.0.1")),
    ("virtualRouter", "split", {}, {"listeners": [PORT]}, {"listeners": [PORT]}),
    ("route", "all", {"virtualRouterName": "split"}, route(1), route(90)),
    (
        "virtualService",
        "web.shop.local",
        {},
        {"provider": {"virtualNode": {"virtualNodeName": "web"}}},
        {"provider": {"virtualRouter": {"virtualRouterName": "split"}}},
    ),
    ("virtualGateway", "edge", {}, {"listeners": [PORT]}, {"listeners": [PORT], "backendDefaults": {}}),
    ("gatewayRoute", "in", {"virtualGatewayName": "edge"}, gateway_route("/"), gateway_route("/shop/")),
]

TEARDOWN = ["gatewayRoute", "virtualGateway", "virtualService", "route", "virtualRouter", "virtualNode", "mesh"]


def plural(word):
    return "meshes" if word == "mesh" else word + "s"


def snake(word):
    return "".join("_" + c.lower() if c.isupper() else c for c in word)


def kebab(word):
    return snake(word).replace("_", "-")


def place(word, above, name=None):
    """The names that say where: all of them for an item, all but its own for a collection."""
    names = {} if word == "mesh" else {"meshName": "shop"}
    names.update(above)
    if name is not None:
        names[word + "Name"] = name
    return names


class Boto:
    """Calls operations by way of boto3, and remembers which."""

    def __init__(self):
        self.client = boto3.client("appmesh", endpoint_url=ENDPOINT, config=Config(retries={"total_max_attempts": 1}))
        self.called = set()

    def call(self, operation, **parameters):
        self.called.add(operation)
        return getattr(self.client, operation)(**parameters)

    def pages(self, operation, size, **parameters):
        self.called.add(operation)
        paginator = self.client.get_paginator(operation)
        return list(paginator.paginate(PaginationConfig={"PageSize": size}, **parameters))

    def refused(self, exception, operation, **parameters):
        kind = getattr(self.client.exceptions, exception)
        try:
            getattr(self.client, operation)(**parameters)
        except kind as error:
            assert error.response["Error"]["Message"], error.response
            assert error.response["ResponseMetadata"]["RequestId"], error.response
            return error.response["Error"]["Message"]
        raise AssertionError(f"{operation} was not refused")


class CommandLine:
    """Calls operations by way of the aws command line, and remembers which.

    A few operations run the binary itself; the rest run what it runs, without its second of start for each.
    """

    def __init__(self):
        self.called = set()
        self.driver = awscli.clidriver.create_clidriver()

    def run(self, operation, parameters):
        arguments = ["--endpoint-url", ENDPOINT, "--output", "json", "appmesh", operation.replace("_", "-")]
        for name, value in parameters.items():
            if name == "PaginationConfig":
                arguments += ["--page-size", str(value["PageSize"])]
                continue
            arguments += ["--" + kebab(name), value if isinstance(value, str) else json.dumps(value)]
        run = self.here if operation not in BY_BINARY else self.binary
        self.called.add(operation)
        return run(arguments)

    def binary(self, arguments):
        return subprocess.run([AWS, *arguments], capture_output=True, text=True)

    def here(self, arguments):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = self.driver.main(arguments)
        return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())

    def call(self, operation, **parameters):
        done = self.run(operation, parameters)
        assert done.returncode == 0, (operation, done.stderr)
        return json.loads(done.stdout) if done.stdout.strip() else {}

    def pages(self, operation, size, **parameters):
        return [self.call(operation, PaginationConfig={"PageSize": size}, **parameters)]

    def refused(self, exception, operation, **parameters):
        done = self.run(operation, parameters)
        assert done.returncode != 0, (operation, done.stdout)
        assert f"({exception})" in done.stderr, done.stderr
        return done.stderr


def create_all(api):
    for word, name, above, spec, _ in KINDS:
        tags = [{"key": "made-by", "value": "test"}]
        here = place(word, above, name)
        made = api.call("create_" + snake(word), **here, spec=spec, tags=tags)[word]
        assert made[word + "Name"] == name and made["metadata"]["version"] == 1, made
        assert made["spec"] == spec and made["status"]["status"] == "ACTIVE", made
        found = api.call("describe_" + snake(word), **here)[word]
        assert found["metadata"]["uid"] == made["metadata"]["uid"], found
        api.refused("ConflictException", "create_" + snake(word), **here, spec=spec)


def update_and_tag_all(api):
    for word, name, above, _, spec in KINDS:
        here = place(word, above, name)
        updated = api.call("update_" + snake(word), **here, spec=spec)[word]
        assert updated["metadata"]["version"] == 2 and updated["spec"] == spec, updated
        arn = updated["metadata"]["arn"]
        api.call("tag_resource", resourceArn=arn, tags=[{"key": "team", "value": "a b+c/d"}])
        api.call("untag_resource", resourceArn=arn, tagKeys=["made-by"])
        tags = api.call("list_tags_for_resource", resourceArn=arn)["tags"]
        assert tags == [{"key": "team", "value": "a b+c/d"}], tags


def list_all(api):
    for number in range(4):
        api.call("create_virtual_node", meshName="shop", virtualNodeName=f"extra-{number}", spec={})
    for word, name, above, _, _ in KINDS:
        pages = api.pages("list_" + snake(plural(word)), 2, **place(word, above))
        items = [item for page in pages for item in page[plural(word)]]
        names = [item[word + "Name"] for item in items]
        extras = [f"extra-{number}" for number in range(4)] if word == "virtualNode" else []
        assert names == extras + [name], names
        assert set(items[0]) >= {"arn", "createdAt", "lastUpdatedAt", "meshOwner", "resourceOwner", "version"}, items
    for number in range(4):
        api.call("delete_virtual_node", meshName="shop", virtualNodeName=f"extra-{number}")


def refuse(api):
    message = api.refused("NotFoundException", "describe_virtual_node", meshName="shop", virtualNodeName="gone")
    assert "gone" in message, message
    message = api.refused("ResourceInUseException", "delete_mesh", meshName="shop")
    assert "shop" in message, message
    wrong = {"listeners": [{"portMapping": {"port": 99999, "protocol": "smtp"}}]}
    message = api.refused("BadRequestException", "create_virtual_router", meshName="shop", virtualRouterName="r", spec=wrong)
    assert "spec.listeners[0].portMapping.port" in message and "protocol" in message, message
    many = [{"key": f"k{number}", "value": ""} for number in range(50)]
    arn = api.call("describe_mesh", meshName="shop")["mesh"]["metadata"]["arn"]
    api.refused("TooManyTagsException", "tag_resource", resourceArn=arn, tags=many)
    api.refused("NotFoundException", "describe_mesh", meshName="shop", meshOwner="123456789012")
    api.refused("ConflictException", "create_mesh", meshName="other", clientToken=token(api, "third"))


def token(api, mesh):
    """A token that a create has used up; a new one each time, for the answer is kept for a day, deleted or not."""
    used = str(uuid.uuid4())
    first = api.call("create_mesh", meshName=mesh, clientToken=used)
    again = api.call("create_mesh", meshName=mesh, clientToken=used)
    assert again["mesh"] == first["mesh"], again
    api.call("delete_mesh", meshName=mesh)
    return used


def delete_all(api):
    kinds = {kind[0]: kind for kind in KINDS}
    for word in TEARDOWN:
        _, name, above, _, spec = kinds[word]
        gone = api.call("delete_" + snake(word), **place(word, above, name))[word]
        assert gone["status"]["status"] == "DELETED" and gone["metadata"]["version"] == 3, gone
        assert gone["spec"] == spec, gone
        api.refused("NotFoundException", "describe_" + snake(word), **place(word, above, name))


def whole(api):
    for step in (create_all, update_and_tag_all, list_all, refuse, delete_all):
        step(api)
    return len(api.called)


def main():
    os.environ.update(CREDENTIALS)
    counts = [whole(Boto()), whole(CommandLine())]
    print(f"{counts[0]} operations by boto3, {counts[1]} by aws")


if __name__ == "__main__":
    main()
