// SPDX-License-Identifier: Apache-2.0
//! nginx and haproxy, configured to do what a workload asks as nearly as they can: one worker, kept upstream connections,
//! mutual TLS with certificates made here. Called by `peers`.

use std::path::Path;
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::mesh::Place;
use super::peers::Stage;
use super::workload::{Act, Way, Workload};

/// Certificates for peers that are not in the mesh: an authority and one pair, good for both ends.
pub(crate) struct Identity {
    chain: String,
    key: String,
    both: String,
    authority: String,
}

const NAME: &str = "proxy.bench.local";

impl Identity {
    pub(crate) fn make(folder: &Path) -> anyhow::Result<Identity> {
        let mut root = CertificateParams::new([])?;
        // OpenSSL takes a certificate whose issuer has its own name for self-signed.
        root.distinguished_name
            .push(DnType::CommonName, "bench authority");
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = CertifiedIssuer::self_signed(root, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let mut leaf = CertificateParams::new([NAME.to_owned()])?;
        leaf.distinguished_name.push(DnType::CommonName, NAME);
        let leaf = leaf.signed_by(&key, &root)?;
        let write = |name: &str, text: String| -> anyhow::Result<String> {
            let path = folder.join(name);
            std::fs::write(&path, text)?;
            Ok(path.display().to_string())
        };
        Ok(Identity {
            chain: write("proxy.crt", leaf.pem())?,
            key: write("proxy.key", key.serialize_pem())?,
            both: write("proxy.pem", leaf.pem() + &key.serialize_pem())?,
            authority: write("authority.pem", root.pem())?,
        })
    }
}

/// What stands in front of and behind one of the two proxies of a way.
struct Hop {
    port: u16,
    upstream: u16,
    secure_in: bool,
    /// The client's certificate is asked for.
    mutual: bool,
    secure_out: bool,
    http2_in: bool,
    http2_out: bool,
}

fn hop(place: &Place<'_>, number: usize) -> Hop {
    let workload = place.workload;
    let app = if workload.is_grpc() {
        place.backend.http2.port()
    } else {
        place.backend.http1.port()
    };
    let whole = Hop {
        port: place.ports[0],
        upstream: app,
        secure_in: workload.way == Way::TlsEdge,
        mutual: false,
        secure_out: false,
        http2_in: workload.is_http2(),
        http2_out: workload.is_grpc(),
    };
    match (workload.way, number) {
        (Way::Mesh { http2 }, 0) => Hop {
            upstream: place.ports[1],
            secure_out: true,
            http2_out: http2,
            ..whole
        },
        (Way::Mesh { http2 }, _) => Hop {
            port: place.ports[1],
            secure_in: true,
            mutual: true,
            http2_in: http2,
            ..whole
        },
        (Way::OneHop | Way::TlsEdge, _) => whole,
    }
}

fn connections(workload: &Workload) -> usize {
    if workload.act == Act::Idle {
        20_000
    } else {
        4096
    }
}

/// `alone` is without a master process: valgrind counts the process it started.
pub(crate) fn nginx(
    program: &Path,
    stage: &Stage<'_>,
    place: &Place<'_>,
    number: usize,
    alone: bool,
) -> anyhow::Result<Command> {
    let (hop, identity) = (hop(place, number), stage.identity);
    let folder = stage.folder.join(format!("nginx-{}-{number}", place.name));
    std::fs::create_dir_all(&folder)?;
    let inside = |name: &str| folder.join(name).display().to_string();
    let mut listen = format!("listen 127.0.0.1:{} reuseport", hop.port);
    let mut tls = String::new();
    if hop.secure_in {
        listen += " ssl";
        tls = format!(
            "ssl_certificate {}; ssl_certificate_key {}; ssl_protocols TLSv1.3; ssl_session_tickets off;",
            identity.chain, identity.key
        );
    }
    if hop.mutual {
        tls += &format!(
            "ssl_verify_client on; ssl_client_certificate {};",
            identity.authority
        );
    }
    if hop.http2_in {
        listen += " http2";
    }
    let pass = if place.workload.is_grpc() {
        "grpc_pass grpc://app;".to_owned()
    } else {
        let scheme = if hop.secure_out { "https" } else { "http" };
        format!(
            "proxy_pass {scheme}://app; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host;"
        )
    };
    let secure_out = if hop.secure_out {
        format!(
            "proxy_ssl_certificate {}; proxy_ssl_certificate_key {}; proxy_ssl_trusted_certificate {}; \
             proxy_ssl_verify on; proxy_ssl_name {NAME}; proxy_ssl_server_name on; proxy_ssl_protocols TLSv1.3;",
            identity.chain, identity.key, identity.authority
        )
    } else {
        String::new()
    };
    let locations: String = if place.workload.routes > 1 {
        (0..place.workload.routes)
            .map(|number| format!("location /r{number:04}/ {{ {pass} }}\n"))
            .collect()
    } else {
        format!("location / {{ {pass} }}")
    };
    let log = if place.workload.observed {
        format!(
            "access_log {} combined buffer=64k flush=1s;",
            inside("access.log")
        )
    } else {
        "access_log off;".to_owned()
    };
    let text = format!(
        "user root; daemon off; master_process {master}; worker_processes 1; pid {pid}; error_log stderr error; worker_rlimit_nofile 20000;\n\
         events {{ worker_connections {connections}; }}\n\
         http {{\n{log} keepalive_timeout 3600s; keepalive_requests 1000000000;\n\
         client_body_temp_path {temp}; proxy_temp_path {temp}; fastcgi_temp_path {temp}; uwsgi_temp_path {temp}; scgi_temp_path {temp};\n\
         upstream app {{ server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 1000000000; keepalive_timeout 3600s; }}\n\
         server {{ {listen}; {tls} {secure_out}\n{locations}\n}}\n}}\n",
        master = if alone { "off" } else { "on" },
        pid = inside("pid"),
        connections = connections(place.workload),
        temp = inside("temp"),
        upstream = hop.upstream,
    );
    let file = inside("nginx.conf");
    std::fs::write(&file, text)?;
    let mut command = Command::new(program);
    command
        .args(["-c", &file, "-e", "stderr", "-p"])
        .arg(&folder);
    Ok(command)
}

pub(crate) fn haproxy(
    program: &Path,
    stage: &Stage<'_>,
    place: &Place<'_>,
    number: usize,
) -> anyhow::Result<Command> {
    let (hop, identity) = (hop(place, number), stage.identity);
    let mut bind = format!("bind 127.0.0.1:{}", hop.port);
    if hop.secure_in {
        bind += &format!(
            " ssl crt {} ssl-min-ver TLSv1.3 no-tls-tickets",
            identity.both
        );
        bind += if hop.http2_in {
            " alpn h2"
        } else {
            " alpn http/1.1"
        };
    } else if hop.http2_in {
        bind += " proto h2";
    }
    if hop.mutual {
        bind += &format!(" ca-file {} verify required", identity.authority);
    }
    let mut server = format!("server app 127.0.0.1:{}", hop.upstream);
    if hop.secure_out {
        server += &format!(
            " ssl crt {} ca-file {} verify required verifyhost {NAME} sni str({NAME}) ssl-min-ver TLSv1.3",
            identity.both, identity.authority
        );
        server += if hop.http2_out {
            " alpn h2"
        } else {
            " alpn http/1.1"
        };
    } else if hop.http2_out {
        server += " proto h2";
    }
    let rules: String = if place.workload.routes > 1 {
        (0..place.workload.routes)
            .map(|number| format!("  use_backend app if {{ path_beg /r{number:04}/ }} {{ req.hdr(x-tier) gold }}\n"))
            .collect()
    } else {
        "  default_backend app\n".to_owned()
    };
    let log = if place.workload.observed {
        "  log stdout format raw local0\n  option httplog\n"
    } else {
        ""
    };
    let text = format!(
        "global\n  nbthread 1\n  no strict-limits\n  maxconn {connections}\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 3600s\n  timeout server 3600s\n  http-reuse always\n{log}\
         frontend front\n  {bind}\n{rules}backend app\n  {server}\n",
        connections = connections(place.workload).min(10_500),
    );
    let file = stage
        .folder
        .join(format!("{}-{number}.haproxy", place.name));
    std::fs::write(&file, text)?;
    let mut command = Command::new(program);
    command.arg("-f").arg(file);
    Ok(command)
}
