// SPDX-License-Identifier: Apache-2.0
//! App Mesh's TLS modes and client policies as TLS contexts: who shows what, who checks what. Pure.

use std::net::IpAddr;

use pillion_config::listener::Protocol;
use pillion_config::tls::ClientCertificate;
use pillion_config::tls::ClientPolicyTls;
use pillion_config::tls::ClientTrust;
use pillion_config::tls::FileCertificate;
use pillion_config::tls::ListenerCertificate;
use pillion_config::tls::ListenerTls;
use pillion_config::tls::ListenerTrust;
use pillion_config::tls::SdsSecret;
use pillion_config::tls::TlsMode;
use pillion_config::virtual_node::ServiceDiscovery;
use pillion_xds::cluster::UpstreamTls;
use pillion_xds::listener::DownstreamTls;
use pillion_xds::secret::SanMatch;
use pillion_xds::secret::SecretSource;
use pillion_xds::secret::Validation;

use super::Caller;
use super::callee::Target;

/// What a listener shows and demands; `None` when it speaks plaintext only.
pub fn downstream(caller: &Caller, tls: &ListenerTls, protocol: Protocol) -> Option<DownstreamTls> {
    if tls.mode == TlsMode::Disabled {
        return None;
    }
    let certificate = match &tls.certificate {
        // Any certificate ARN means the node's own certificate (design 5).
        ListenerCertificate::Acm(_) => SecretSource::Ads(caller.identity.clone()),
        ListenerCertificate::File(files) => certificate_files(files),
        ListenerCertificate::Sds(secret) => sds(caller, secret),
    };
    let validation = tls.validation.as_ref().map(|validation| Validation {
        trust: match &validation.trust {
            ListenerTrust::File(file) => SecretSource::TrustFile(file.certificate_chain.clone()),
            ListenerTrust::Sds(secret) => sds(caller, secret),
        },
        subject_alt_names: validation.names().iter().map(|name| san(name)).collect(),
    });
    let require_client_certificate = validation.is_some();
    Some(DownstreamTls {
        certificate,
        validation,
        require_client_certificate,
        alpn: alpn(protocol),
    })
}

/// TLS towards a target, by the client's policy and by what the server's listener offers; `None` is plaintext.
pub fn upstream(
    caller: &Caller,
    policy: Option<&ClientPolicyTls>,
    target: &Target<'_>,
) -> Option<UpstreamTls> {
    let listener = target.node.spec.listener(target.mapping.port);
    let offered = listener
        .and_then(|listener| listener.tls.as_ref())
        .filter(|tls| tls.mode != TlsMode::Disabled);
    // A policy that does not name the port is as if there were none.
    let policy = policy.filter(|policy| policy.covers(target.mapping.port));
    let validation = match (policy, offered) {
        (None, None) => return None,
        (Some(policy), None) if !policy.enforced() => return None,
        (Some(policy), _) => Some(Validation {
            trust: match &policy.validation.trust {
                // Any authority ARN means the bundle of this installation (design 5).
                ClientTrust::Acm(_) => SecretSource::Ads(caller.trust.clone()),
                ClientTrust::File(file) => SecretSource::TrustFile(file.certificate_chain.clone()),
                ClientTrust::Sds(secret) => sds(caller, secret),
            },
            subject_alt_names: match policy.validation.names() {
                [] => expected_names(target),
                names => names.iter().map(|name| san(name)).collect(),
            },
        }),
        // The client follows the server: an ACM certificate was checked against its authority without being told,
        // any other was encrypted but not checked.
        (None, Some(tls)) => {
            matches!(tls.certificate, ListenerCertificate::Acm(_)).then(|| Validation {
                trust: SecretSource::Ads(caller.trust.clone()),
                subject_alt_names: expected_names(target),
            })
        }
    };
    let certificate = policy
        .and_then(|policy| policy.certificate.as_ref())
        .map(|certificate| match certificate {
            ClientCertificate::File(files) => certificate_files(files),
            ClientCertificate::Sds(secret) => sds(caller, secret),
        });
    let sni = server_name(target).filter(|name| name.parse::<IpAddr>().is_err());
    Some(UpstreamTls {
        certificate,
        validation,
        sni,
        alpn: alpn(target.mapping.protocol),
    })
}

/// What this authority gives the proxy, it gives over ADS. Any other secret the proxy takes from the SDS socket beside
/// it, as App Mesh had it: `APPMESH_SDS_SOCKET_PATH` in its environment, this cluster in its bootstrap.
fn sds(caller: &Caller, secret: &SdsSecret) -> SecretSource {
    let name = secret.secret_name.clone();
    if name == caller.identity || name == caller.trust {
        return SecretSource::Ads(name);
    }
    SecretSource::Sds {
        name,
        cluster: SDS_CLUSTER.to_owned(),
    }
}

/// Name of the static cluster in App Mesh's bootstrap.
const SDS_CLUSTER: &str = "static_cluster_sds_unix_socket";

fn certificate_files(files: &FileCertificate) -> SecretSource {
    SecretSource::CertificateFiles {
        chain: files.certificate_chain.clone(),
        key: files.private_key.clone(),
    }
}

/// The name a node is found under: its DNS hostname (or IP literal), or `<service>.<namespace>` of Cloud Map.
pub fn discovery_name(discovery: &ServiceDiscovery) -> String {
    match discovery {
        ServiceDiscovery::Dns(dns) => dns.hostname.clone(),
        ServiceDiscovery::AwsCloudMap(map) => {
            format!("{}.{}", map.service_name, map.namespace_name)
        }
    }
}

fn server_name(target: &Target<'_>) -> Option<String> {
    target
        .node
        .spec
        .service_discovery
        .as_ref()
        .map(discovery_name)
}

fn expected_names(target: &Target<'_>) -> Vec<SanMatch> {
    server_name(target).iter().map(|name| san(name)).collect()
}

fn san(name: &str) -> SanMatch {
    if name.contains("://") {
        SanMatch::Uri(name.to_owned())
    } else if name.parse::<IpAddr>().is_ok() {
        SanMatch::Ip(name.to_owned())
    } else {
        SanMatch::Dns(name.to_owned())
    }
}

fn alpn(protocol: Protocol) -> Vec<String> {
    let names: &[&str] = match protocol {
        Protocol::Http => &["http/1.1"],
        Protocol::Http2 | Protocol::Grpc => &["h2"],
        Protocol::Tcp => &[],
    };
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Secrets that listeners and client policies name and this authority does not serve to this proxy. Without an SDS socket
/// the proxy refuses what needs one, so a person should hear of it.
pub fn foreign_secrets<'a>(
    caller: &Caller,
    listeners: impl Iterator<Item = &'a ListenerTls>,
    policies: impl Iterator<Item = &'a ClientPolicyTls>,
) -> Vec<String> {
    let mut certificates = Vec::new();
    let mut bundles = Vec::new();
    for tls in listeners.filter(|tls| tls.mode != TlsMode::Disabled) {
        if let ListenerCertificate::Sds(secret) = &tls.certificate {
            certificates.push(secret);
        }
        if let Some(ListenerTrust::Sds(secret)) =
            tls.validation.as_ref().map(|validation| &validation.trust)
        {
            bundles.push(secret);
        }
    }
    for policy in policies {
        if let Some(ClientCertificate::Sds(secret)) = &policy.certificate {
            certificates.push(secret);
        }
        if let ClientTrust::Sds(secret) = &policy.validation.trust {
            bundles.push(secret);
        }
    }
    let named = [
        ("certificate", certificates, &caller.identity),
        ("trust bundle", bundles, &caller.trust),
    ];
    let finding = |(what, secrets, own): (&str, Vec<&SdsSecret>, &String)| {
        let foreign = secrets
            .into_iter()
            .filter(|secret| secret.secret_name != *own);
        let say = |secret: &SdsSecret| {
            format!(
                "secretName {:?} comes from the proxy's SDS socket (APPMESH_SDS_SOCKET_PATH): the {what} served here is {own:?}",
                secret.secret_name
            )
        };
        foreign.map(say).collect::<Vec<String>>()
    };
    named.into_iter().flat_map(finding).collect()
}
