// SPDX-License-Identifier: Apache-2.0
//! Who this proxy is: the resource ARN that App Mesh's task definitions carry, in any of its spellings. Called by the
//! check of the arguments.

use super::Env;
use super::Report;

/// Older names of `APPMESH_RESOURCE_ARN`, newest first.
const OLDER: [&str; 2] = ["APPMESH_RESOURCE_NAME", "APPMESH_VIRTUAL_NODE_NAME"];
/// And of `APPMESH_RESOURCE_CLUSTER`.
const CLUSTER: [&str; 2] = ["APPMESH_RESOURCE_CLUSTER", "APPMESH_VIRTUAL_NODE_CLUSTER"];

/// Who this proxy is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// As given: an ARN, or `mesh/<mesh>[@owner]/virtualNode/<name>`.
    pub id: String,
    /// Name of its metrics and traces.
    pub cluster: String,
    /// The mesh, without owner.
    pub mesh: String,
    /// The virtual node or gateway.
    pub name: String,
    /// Which of the two.
    pub kind: Kind,
}

/// What a proxy stands beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A service: sidecar.
    VirtualNode,
    /// Nothing: edge.
    VirtualGateway,
}

impl Node {
    /// `<mesh>/<name>`, as App Mesh named segments.
    pub fn service_name(&self) -> String {
        format!("{}/{}", self.mesh, self.name)
    }

    /// Dimensions of App Mesh's own metrics.
    pub fn dimensions(&self) -> Vec<(String, String)> {
        let kind = match self.kind {
            Kind::VirtualNode => "VirtualNode",
            Kind::VirtualGateway => "VirtualGateway",
        };
        vec![
            ("Mesh".to_owned(), self.mesh.clone()),
            (kind.to_owned(), self.name.clone()),
        ]
    }

    /// Labels of every metric of this proxy.
    pub fn labels(&self) -> Vec<(String, String)> {
        let kind = match self.kind {
            Kind::VirtualNode => "appmesh_virtual_node",
            Kind::VirtualGateway => "appmesh_virtual_gateway",
        };
        vec![
            ("appmesh_mesh".to_owned(), self.mesh.clone()),
            (kind.to_owned(), self.name.clone()),
        ]
    }
}

pub(super) fn check(arn: Option<&str>, env: Env<'_>, report: &mut Report) -> Option<Node> {
    let setting = "APPMESH_RESOURCE_ARN";
    let given = arn
        .map(str::to_owned)
        .into_iter()
        .chain(OLDER.iter().filter_map(|name| env(name)));
    let Some(id) = given
        .map(|id| id.trim().to_owned())
        .find(|id| !id.is_empty())
    else {
        let why = "is required; name the resource this proxy stands for: an ARN, or mesh/<mesh>/virtualNode/<name>";
        report.add(setting, "", why);
        return None;
    };
    let Some((mesh, kind, name)) = parse(&id) else {
        let why = "names no virtual node or gateway; give arn:aws:appmesh:<region>:<account>:mesh/<mesh>/virtualNode/<name>, \
                   mesh/<mesh>/virtualNode/<name> or …/virtualGateway/<name>";
        report.add(setting, &id, why);
        return None;
    };
    let cluster = CLUSTER
        .iter()
        .filter_map(|name| env(name))
        .find(|cluster| !cluster.is_empty());
    Some(Node {
        cluster: cluster.unwrap_or_else(|| id.clone()),
        mesh,
        name,
        kind,
        id,
    })
}

fn parse(id: &str) -> Option<(String, Kind, String)> {
    let path = match id.strip_prefix("arn:") {
        // arn:partition:appmesh:region:account:mesh/…
        Some(rest) => {
            let mut parts = rest.splitn(5, ':');
            let service = parts.nth(1)?;
            let path = parts.nth(2)?;
            (service == "appmesh").then_some(path)?
        }
        None => id,
    };
    let mut parts = path.split('/');
    let (word, mesh, kind, name) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let kind = match kind {
        "virtualNode" => Kind::VirtualNode,
        "virtualGateway" => Kind::VirtualGateway,
        _ => return None,
    };
    let mesh = mesh.split('@').next()?;
    let whole = word == "mesh" && parts.next().is_none() && !mesh.is_empty() && !name.is_empty();
    whole.then(|| (mesh.to_owned(), kind, name.to_owned()))
}
