// SPDX-License-Identifier: Apache-2.0
//! Quotas, as App Mesh had them and as settings here: off unless `--quota` names one. Pure; asked by [`super::write`]
//! before a create, and by the xDS port before one more stream.

use std::collections::BTreeMap;

use pillion_config::Kind;
use pillion_config::ResourceKey;
use pillion_config::Spec;

use crate::store::Model;
use crate::store::live::Refusal;
use crate::store::model::Collection;

/// Every quota there is, with the default App Mesh gave it.
const KNOWN: [(&str, u32); 9] = [
    ("meshes", 15),
    ("virtual-nodes", 200),
    ("virtual-services", 200),
    ("virtual-routers", 200),
    ("virtual-gateways", 3),
    ("routes", 50),
    ("gateway-routes", 10),
    ("backends", 50),
    ("proxies", 50),
];

/// The quotas that hold, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quotas(BTreeMap<&'static str, u32>);

impl Quotas {
    /// Reads `meshes=15,routes=50`; `app-mesh` stands for all of App Mesh's own.
    pub fn parse(text: &str) -> Result<Quotas, String> {
        let mut quotas = BTreeMap::new();
        for part in text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            if part == "app-mesh" {
                quotas.extend(KNOWN);
                continue;
            }
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let known = KNOWN.iter().find(|(known, _)| *known == name);
            match (known, value.parse::<u32>()) {
                (Some((name, _)), Ok(value)) => quotas.insert(*name, value),
                _ => {
                    let names: Vec<&str> = KNOWN.iter().map(|(name, _)| *name).collect();
                    return Err(format!(
                        "--quota {part:?} must be <name>=<number> or app-mesh; names are {}",
                        names.join(", ")
                    ));
                }
            };
        }
        Ok(Quotas(quotas))
    }

    /// Streams that proxies of one node or gateway may hold at once.
    pub fn proxies(&self) -> Option<u32> {
        self.0.get("proxies").copied()
    }

    /// Whether a virtual node names no more backends than it may.
    pub fn check_spec(&self, spec: &Spec) -> Result<(), Refusal> {
        let (Some(limit), Spec::VirtualNode(node)) = (self.0.get("backends"), spec) else {
            return Ok(());
        };
        let found = node.backends().count();
        if found <= *limit as usize {
            return Ok(());
        }
        Err(Refusal::LimitExceeded(format!(
            "spec.backends: has {found} items, and the quota of this installation is {limit} (--quota backends=…)"
        )))
    }

    /// Whether there is room for `key`.
    pub fn check(&self, model: &Model, key: &ResourceKey, mesh_owner: &str) -> Result<(), Refusal> {
        let name = match key.kind {
            Kind::Mesh => "meshes",
            Kind::VirtualNode => "virtual-nodes",
            Kind::VirtualService => "virtual-services",
            Kind::VirtualRouter => "virtual-routers",
            Kind::VirtualGateway => "virtual-gateways",
            Kind::Route => "routes",
            Kind::GatewayRoute => "gateway-routes",
        };
        let Some(limit) = self.0.get(name) else {
            return Ok(());
        };
        let of = Collection {
            kind: key.kind,
            mesh: if key.kind == Kind::Mesh {
                String::new()
            } else {
                key.mesh.clone()
            },
            parent: key.parent.clone(),
        };
        let counted = |record: &&std::sync::Arc<crate::store::Record>| {
            key.kind != Kind::Mesh || record.mesh_owner == mesh_owner
        };
        let found = model.list(&of, None).filter(counted).count();
        if found < *limit as usize {
            return Ok(());
        }
        Err(Refusal::LimitExceeded(format!(
            "there are {found} {name} already, and the quota of this installation is {limit} (--quota {name}=…)"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_are_off_unless_named() {
        assert_eq!(Quotas::parse("").expect("nothing"), Quotas::default());
        let quotas = Quotas::parse("app-mesh, proxies=7").expect("both known");
        assert_eq!(quotas.proxies(), Some(7));
        for wrong in ["mesh=1", "meshes", "meshes=-1"] {
            assert!(
                Quotas::parse(wrong)
                    .expect_err("wrong")
                    .contains("virtual-nodes")
            );
        }
    }
}
