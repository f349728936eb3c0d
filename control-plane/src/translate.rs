// SPDX-License-Identifier: Apache-2.0
//! The model as xDS: one view of the graph in, the resources of one proxy out. Pure; called by `publish.rs`. Knows how
//! App Mesh behaved, and nothing of streams, versions or encodings.
//!
//! A view becomes callees (App Mesh's decisions: which rules, which targets, which limits), callees become clusters and
//! route tables, and listeners tie them together.

pub mod callee;
pub mod cluster;
pub mod compose;
pub mod endpoint;
pub mod gateway;
pub mod listener;
pub mod references;
pub mod route;
pub mod tls;

use pillion_config::ResourceKey;
use pillion_config::graph::GatewayView;
use pillion_config::graph::NodeView;
use pillion_config::mesh::EgressFilterType;
use pillion_config::mesh::IpPreference;
use pillion_config::mesh::MeshSpec;
use pillion_xds::resource::Resource;

use references::References;

/// What a proxy is to be told, and what could not be said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Translation {
    /// Every resource the proxy may ask for, secrets excepted.
    pub resources: Vec<Resource>,
    /// Listeners for clients without a proxy, which ask for them by name; a proxy never does.
    pub on_demand: Vec<Resource>,
    /// Parts of the model that have no effect here, each for a person to read.
    pub findings: Vec<String>,
}

/// The proxy that is translated for, as its certificates and cluster names need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Mesh name.
    pub mesh: String,
    /// SPIFFE id of the proxy: the name of the secret with its certificate.
    pub identity: String,
    /// Bare `spiffe://<trust domain>`: the name of the secret with the trust bundle.
    pub trust: String,
    /// The mesh's address preference, which nodes may override.
    pub ip_preference: Option<IpPreference>,
}

impl Caller {
    /// The proxy of `key`, a virtual node or gateway.
    pub fn new(trust_domain: &str, key: &ResourceKey, mesh: &MeshSpec) -> Caller {
        Caller {
            mesh: key.mesh.clone(),
            identity: spiffe_id(trust_domain, key),
            trust: trust_name(trust_domain),
            ip_preference: mesh.ip_preference(),
        }
    }
}

/// `spiffe://<trust domain>/mesh/<mesh>/virtualNode/<name>`.
pub fn spiffe_id(trust_domain: &str, key: &ResourceKey) -> String {
    format!("spiffe://{trust_domain}/{}", key.id())
}

/// Bare `spiffe://<trust domain>`.
pub fn trust_name(trust_domain: &str) -> String {
    format!("spiffe://{trust_domain}")
}

/// A sidecar's resources.
pub fn node(trust_domain: &str, view: &NodeView<'_>) -> Translation {
    let caller = Caller::new(
        trust_domain,
        &ResourceKey::virtual_node(view.mesh, view.name),
        view.mesh_spec,
    );
    let callees: Vec<_> = view
        .backends
        .iter()
        .map(|backend| callee::resolve(&backend.service, backend.client_policy))
        .collect();
    let clusters = cluster::Clusters::gather(&caller, &callees, &cluster::unlimited());
    let mut resources = Vec::new();
    for listener in view.spec.listeners() {
        resources.push(Resource::Cluster(cluster::ingress(view, listener)));
        resources.extend(route::ingress(view, listener).map(Resource::Route));
    }
    resources.extend(
        route::egress(view, &callees, &clusters)
            .into_iter()
            .map(Resource::Route),
    );
    resources.extend(
        listener::node(&caller, view, &callees, &clusters)
            .into_iter()
            .map(Resource::Listener),
    );
    let original = match view.mesh_spec.egress() {
        EgressFilterType::AllowAll => cluster::allow_all(view.mesh),
        EgressFilterType::DropAll => cluster::amazonaws(view.mesh),
    };
    resources.push(Resource::Cluster(cluster::original_destination(&original)));
    let mut findings: Vec<String> = callees
        .iter()
        .flat_map(|callee| callee.findings.clone())
        .collect();
    findings.extend(listener::hidden_tcp(&callees));
    let listeners = view
        .spec
        .listeners()
        .iter()
        .filter_map(|one| one.tls.as_ref());
    let policies = view
        .backends
        .iter()
        .filter_map(|backend| backend.client_policy);
    findings.extend(tls::foreign_secrets(&caller, listeners, policies));
    finish(resources, clusters, findings)
}

/// A gateway's resources.
pub fn gateway(trust_domain: &str, view: &GatewayView<'_>) -> Translation {
    let caller = Caller::new(
        trust_domain,
        &ResourceKey::virtual_gateway(view.mesh, view.name),
        view.mesh_spec,
    );
    let mut callees: Vec<callee::Callee<'_>> = Vec::new();
    for service in view
        .routes
        .iter()
        .filter_map(|route| route.service.as_ref())
    {
        if !callees.iter().any(|known| known.name == service.name) {
            callees.push(callee::resolve(service, view.client_policy));
        }
    }
    let clusters =
        cluster::Clusters::gather(&caller, &callees, &cluster::gateway_limits(view.spec));
    let mut findings: Vec<String> = callees
        .iter()
        .flat_map(|callee| callee.findings.clone())
        .collect();
    let mut resources = Vec::new();
    for listener in &view.spec.listeners {
        let (routes, left_out) =
            gateway::routes(view, listener.port_mapping.port, &callees, &clusters);
        resources.push(Resource::Route(routes));
        findings.extend(left_out);
        resources.push(Resource::Listener(listener::gateway(
            &caller, view, listener,
        )));
    }
    let listeners = view
        .spec
        .listeners
        .iter()
        .filter_map(|one| one.tls.as_ref());
    findings.extend(tls::foreign_secrets(
        &caller,
        listeners,
        view.client_policy.into_iter(),
    ));
    finish(resources, clusters, findings)
}

fn finish(
    mut resources: Vec<Resource>,
    mut clusters: cluster::Clusters,
    mut findings: Vec<String>,
) -> Translation {
    findings.append(&mut clusters.findings);
    findings.sort();
    findings.dedup();
    for cluster in clusters.used(&References::of(&resources).clusters) {
        resources.extend(endpoint::of(&cluster).map(Resource::Endpoint));
        resources.push(Resource::Cluster(cluster));
    }
    Translation {
        on_demand: listener::proxyless(&resources),
        resources,
        findings,
    }
}
