# SPDX-License-Identifier: Apache-2.0
"""grpcio's own xDS client, without a proxy: argv is the API's and the xDS port's address."""
import json
import os
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

api, xds = sys.argv[1:3]
os.environ["GRPC_XDS_BOOTSTRAP_CONFIG"] = json.dumps({
    "xds_servers": [{
        "server_uri": xds, "channel_creds": [{"type": "insecure"}], "server_features": ["xds_v3"],
    }],
    "node": {"id": "mesh/m/virtualNode/web", "cluster": "web"},
})
import grpc  # noqa: E402  (reads the bootstrap)


def put(path, body):
    request = urllib.request.Request(f"http://{api}/v20190125{path}", json.dumps(body).encode(), method="PUT")
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200


class Echo(grpc.GenericRpcHandler):
    def __init__(self, name):
        self.name = name

    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(lambda request, context: self.name)


def serve(name):
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((Echo(name),))
    port = server.add_insecure_port("localhost:0")
    server.start()
    return server, port


(one, port_1), (two, port_2) = serve(b"v1"), serve(b"v2")
grpc_on = lambda port: {"portMapping": {"port": port, "protocol": "grpc"}}


def route(first, second):
    targets = [{"virtualNode": "v1", "weight": first}, {"virtualNode": "v2", "weight": second}]
    return {"grpcRoute": {"match": {"serviceName": "test.Echo"}, "action": {"weightedTargets": targets}}}


put("/meshes", {"meshName": "m"})
for name, port in (("v1", port_1), ("v2", port_2)):
    put("/meshes/m/virtualNodes", {"virtualNodeName": name, "spec": {
        "listeners": [grpc_on(port)], "serviceDiscovery": {"dns": {"hostname": "localhost"}}}})
put("/meshes/m/virtualRouters", {"virtualRouterName": "r", "spec": {"listeners": [grpc_on(9090)]}})
put("/meshes/m/virtualRouter/r/routes", {"routeName": "all", "spec": route(1, 0)})
put("/meshes/m/virtualServices", {"virtualServiceName": "echo.local", "spec": {
    "provider": {"virtualRouter": {"virtualRouterName": "r"}}}})
put("/meshes/m/virtualNodes", {"virtualNodeName": "web", "spec": {
    "backends": [{"virtualService": {"virtualServiceName": "echo.local"}}]}})

with grpc.insecure_channel("xds:///echo.local:9090") as channel:
    call = channel.unary_unary("/test.Echo/Say")
    assert call(b"", timeout=15) == b"v1"
    put("/meshes/m/virtualRouter/r/routes/all", {"spec": route(0, 1)})
    deadline = time.monotonic() + 15
    while call(b"", timeout=15) != b"v2":
        assert time.monotonic() < deadline, "still v1"
        time.sleep(0.05)
    try:
        channel.unary_unary("/other.Service/Say")(b"", timeout=15)
        raise AssertionError("another service was routed")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNAVAILABLE, error
print("v1 then v2")
