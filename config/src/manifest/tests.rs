// SPDX-License-Identifier: Apache-2.0
//! Manifests in each of their spellings come to the same documents.

use super::*;

fn parse(text: &str) -> Result<Vec<Document>, Vec<Problem>> {
    parse_manifest(text, &Parameters::new())
}

fn lines(text: &str) -> Vec<String> {
    parse(text)
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect()
}

const YAML: &str = r"
meshName: shop
virtualNodeName: web
spec:
  listeners:
    - portMapping: {port: 8080, protocol: http}
  serviceDiscovery: {dns: {hostname: 127.0.0.1}}
tags: [{key: team, value: edge}]
---
meshName: shop
---
meshName: shop
virtualRouterName: r
routeName: all
spec:
  httpRoute:
    match: {prefix: /}
    action: {weightedTargets: [{virtualNode: web, weight: 1}]}
---
meshName: shop
virtualRouterName: r
spec: {listeners: [{portMapping: {port: 80, protocol: http}}]}
";

#[test]
fn yaml_documents_sort_so_that_each_follows_what_it_names() {
    let documents = in_apply_order(parse(YAML).unwrap());
    let keys: Vec<ResourceKey> = documents
        .iter()
        .map(|document| document.key.clone())
        .collect();
    assert_eq!(
        keys,
        [
            ResourceKey::mesh("shop"),
            ResourceKey::virtual_node("shop", "web"),
            ResourceKey::virtual_router("shop", "r"),
            ResourceKey::route("shop", "r", "all"),
        ]
    );
    assert_eq!(
        documents[1].tags,
        [Tag {
            key: "team".into(),
            value: "edge".into()
        }]
    );
    assert_eq!(documents[0].origin, "[1]");
}

#[test]
fn a_json_list_reads_like_yaml_documents() {
    let documents =
        parse(r#"[{"meshName": "shop", "spec": {"egressFilter": {"type": "ALLOW_ALL"}}}]"#)
            .unwrap();
    assert_eq!(documents[0].key, ResourceKey::mesh("shop"));
    assert_eq!(documents[0].origin, "");
}

#[test]
fn every_problem_of_every_document_carries_its_place() {
    let text = r#"[{"meshName": "m", "virtualNodeName": "a/b", "spec": {"listener": []}, "colour": 1},
                   {"meshName": "m", "routeName": "t", "meshOwner": "me"},
                   {"name": "x"}, 7]"#;
    let paths: Vec<String> = parse(text)
        .unwrap_err()
        .into_iter()
        .map(|problem| problem.path)
        .collect();
    assert_eq!(
        paths,
        [
            "[0].colour",
            "[0].virtualNodeName",
            "[0].spec.listener",
            "[1].spec",
            "[1].virtualRouterName",
            "[1].meshOwner",
            "[2]",
            "[3]",
        ]
    );
}

#[test]
fn what_is_neither_json_nor_yaml_says_so() {
    assert!(lines("{\"meshName\": ")[0].starts_with("is not JSON: "));
    assert!(lines("a: [")[0].starts_with("is not YAML: "));
    assert!(lines("1: x")[0].contains("member named 1"));
    assert_eq!(lines(""), ["holds no App Mesh resource"]);
    assert_eq!(lines("Resources: {}"), ["holds no App Mesh resource"]);
}

const TEMPLATE: &str = r#"
Parameters:
  Stage: {Type: String, Default: prod}
  Port: {Type: Number, Default: 8080}
Resources:
  Mesh:
    Type: AWS::AppMesh::Mesh
    Properties: {MeshName: !Sub "shop-${Stage}"}
  Bucket: {Type: "AWS::S3::Bucket"}
  Web:
    Type: AWS::AppMesh::VirtualNode
    Properties:
      MeshName: !GetAtt Mesh.MeshName
      VirtualNodeName: web
      Spec:
        Listeners:
          - PortMapping: {Port: !Ref Port, Protocol: http}
            Timeout: {HTTP: {PerRequest: {Unit: s, Value: "5"}}}
        ServiceDiscovery: {DNS: {Hostname: !Sub ["${Host}.local", {Host: web}]}}
        Backends: !Ref AWS::NoValue
  Cart:
    Type: AWS::AppMesh::VirtualNode
    Properties:
      MeshName: {"Fn::GetAtt": [Mesh, MeshName]}
      VirtualNodeName: cart
      Spec:
        ServiceDiscovery:
          AWSCloudMap: {NamespaceName: shop, ServiceName: "cart${!x}", Attributes: [{Key: a, Value: 1}]}
"#;

#[test]
fn a_template_reads_like_the_inputs_it_stands_for() {
    let documents = in_apply_order(parse(TEMPLATE).unwrap());
    let keys: Vec<ResourceKey> = documents
        .iter()
        .map(|document| document.key.clone())
        .collect();
    assert_eq!(
        keys,
        [
            ResourceKey::mesh("shop-prod"),
            ResourceKey::virtual_node("shop-prod", "cart"),
            ResourceKey::virtual_node("shop-prod", "web"),
        ]
    );
    let expected = serde_json::json!({
        "listeners": [{
            "portMapping": {"port": 8080, "protocol": "http"},
            "timeout": {"http": {"perRequest": {"unit": "s", "value": 5}}},
        }],
        "serviceDiscovery": {"dns": {"hostname": "web.local"}},
    });
    assert_eq!(documents[2].spec.to_value(), expected);
    let cloud_map = documents[1].spec.to_value();
    assert_eq!(
        cloud_map["serviceDiscovery"]["awsCloudMap"]["attributes"][0]["value"],
        "1"
    );
}

#[test]
fn parameters_given_win_over_defaults() {
    let parameters = Parameters::from([
        ("Stage".to_owned(), "test".to_owned()),
        ("Port".to_owned(), "81".to_owned()),
    ]);
    let documents = parse_manifest(TEMPLATE, &parameters).unwrap();
    let web = documents
        .iter()
        .find(|document| document.key.name == "web")
        .unwrap();
    assert_eq!(web.key.mesh, "shop-test");
    assert_eq!(
        web.spec.to_value()["listeners"][0]["portMapping"]["port"],
        81
    );
}

#[test]
fn what_only_aws_knows_is_a_problem_with_a_way_out() {
    let text = r#"
Resources:
  Mesh: {Type: "AWS::AppMesh::Mesh", Properties: {MeshName: !GetAtt Mesh.MeshName}}
  Odd: {Type: "AWS::AppMesh::Thing"}
  Web:
    Type: AWS::AppMesh::VirtualNode
    Condition: Sometimes
    Properties: {MeshName: !Ref Mesh, VirtualNodeName: !If [a, b, c], Spec: {}}
  S:
    Type: AWS::AppMesh::VirtualService
    Properties: {MeshName: !Ref Nowhere, VirtualServiceName: !GetAtt Mesh.Arn, Spec: {Provder: {}}}
"#;
    assert_eq!(
        lines(text),
        [
            "Resources.Mesh.Properties.MeshName: refers to itself in a circle",
            "Resources.Odd.Type: AWS::AppMesh::Thing is no App Mesh resource",
            "Resources.S.Properties.MeshName: `Nowhere` is no parameter of the template; give its value",
            "Resources.S.Properties.VirtualServiceName: attribute Arn of Mesh is known to AWS only; write the value itself",
            "Resources.Web.Condition: cannot be decided here; remove it",
            "Resources.Web.Properties.MeshName: Ref of resource Mesh is known to AWS only; use Fn::GetAtt of its name",
            "Resources.Web.Properties.VirtualNodeName: Fn::If is not understood here; write the value itself",
        ]
    );
}
