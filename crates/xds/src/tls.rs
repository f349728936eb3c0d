// SPDX-License-Identifier: Apache-2.0
//! TLS contexts of clusters and listeners: transport sockets that name certificates by SDS over ADS, over a socket of
//! their own, or by file. Called by the decodes of clusters and filter chains.

use crate::cluster::UpstreamTls;
use crate::field;
use crate::field::Checked;
use crate::field::Holds;
use crate::field::Refusal;
use crate::field::Under;
use crate::field::refuse;
use crate::listener::DownstreamTls;
use crate::proto::Any;
use crate::proto::core;
use crate::proto::core::config_source::ConfigSourceSpecifier;
use crate::proto::core::grpc_service::EnvoyGrpc;
use crate::proto::core::grpc_service::TargetSpecifier;
use crate::proto::core::transport_socket::ConfigType;
use crate::proto::matcher;
use crate::proto::matcher::string_matcher::MatchPattern;
use crate::proto::tls as proto;
use crate::proto::tls::common_tls_context::CombinedCertificateValidationContext;
use crate::proto::tls::common_tls_context::ValidationContextType;
use crate::proto::tls::subject_alt_name_matcher::SanType;
use crate::secret::SanMatch;
use crate::secret::SecretSource;
use crate::secret::Validation;

/// The name by which Envoy knows the TLS transport socket.
const SOCKET: &str = "envoy.transport_sockets.tls";

pub(crate) fn encode_upstream(tls: &UpstreamTls) -> core::TransportSocket {
    socket(field::pack(&proto::UpstreamTlsContext {
        common_tls_context: Some(encode_common(
            tls.certificate.as_ref(),
            tls.validation.as_ref(),
            &tls.alpn,
        )),
        sni: tls.sni.clone().unwrap_or_default(),
        ..Default::default()
    }))
}

pub(crate) fn decode_upstream(socket: core::TransportSocket) -> Checked<UpstreamTls> {
    let context: proto::UpstreamTlsContext = field::unpack("typed_config", &typed_config(socket)?)?;
    let proto::UpstreamTlsContext {
        common_tls_context,
        sni,
        auto_host_sni,
        auto_sni_san_validation,
        allow_renegotiation,
        max_session_keys: _,      // how many sessions are kept for resumption
        enforce_rsa_key_usage: _, // rustls checks key usage itself
    } = context;
    refuse!(auto_host_sni, auto_sni_san_validation, allow_renegotiation);
    let common = decode_common(common_tls_context).under("common_tls_context")?;
    Ok(UpstreamTls {
        certificate: common.certificate,
        validation: common.validation,
        sni: Some(sni).filter(|sni| !sni.is_empty()),
        alpn: common.alpn,
    })
}

pub(crate) fn encode_downstream(tls: &DownstreamTls) -> core::TransportSocket {
    socket(field::pack(&proto::DownstreamTlsContext {
        common_tls_context: Some(encode_common(
            Some(&tls.certificate),
            tls.validation.as_ref(),
            &tls.alpn,
        )),
        require_client_certificate: Some(field::flag(tls.require_client_certificate)),
        ..Default::default()
    }))
}

pub(crate) fn decode_downstream(socket: core::TransportSocket) -> Checked<DownstreamTls> {
    let context: proto::DownstreamTlsContext =
        field::unpack("typed_config", &typed_config(socket)?)?;
    let proto::DownstreamTlsContext {
        common_tls_context,
        require_client_certificate,
        require_sni,
        disable_stateful_session_resumption: _, // resumption is speed, not outcome
        session_timeout: _,
        ocsp_staple_policy,
        full_scan_certs_on_sni_mismatch: _, // there is one certificate
        prefer_client_ciphers: _,
        session_ticket_keys_type,
    } = context;
    refuse!(ocsp_staple_policy, session_ticket_keys_type);
    field::only("require_sni", require_sni, Holds::False)?;
    let common = decode_common(common_tls_context).under("common_tls_context")?;
    let require = field::truth(require_client_certificate).unwrap_or(false);
    if require && common.validation.is_none() {
        return Err(Refusal::new(
            "require_client_certificate",
            "needs a validation context to check the certificate against",
        ));
    }
    Ok(DownstreamTls {
        certificate: field::required("common_tls_context.tls_certificates", common.certificate)?,
        validation: common.validation,
        require_client_certificate: require,
        alpn: common.alpn,
    })
}

fn socket(context: Any) -> core::TransportSocket {
    core::TransportSocket {
        name: SOCKET.to_owned(),
        config_type: Some(ConfigType::TypedConfig(context)),
    }
}

fn typed_config(socket: core::TransportSocket) -> Checked<Any> {
    let core::TransportSocket {
        name: _, // the type of the configuration decides
        config_type,
    } = socket;
    let Some(ConfigType::TypedConfig(any)) = config_type else {
        return Err(Refusal::missing("typed_config"));
    };
    Ok(any)
}

/// What both directions share.
struct Common {
    certificate: Option<SecretSource>,
    validation: Option<Validation>,
    alpn: Vec<String>,
}

fn encode_common(
    certificate: Option<&SecretSource>,
    validation: Option<&Validation>,
    alpn: &[String],
) -> proto::CommonTlsContext {
    let mut context = proto::CommonTlsContext {
        alpn_protocols: alpn.to_vec(),
        validation_context_type: validation.map(encode_validation),
        ..Default::default()
    };
    match certificate {
        None => {}
        Some(SecretSource::CertificateFiles { chain, key }) => {
            context.tls_certificates = vec![proto::TlsCertificate {
                certificate_chain: Some(field::file(chain)),
                private_key: Some(field::file(key)),
                ..Default::default()
            }];
        }
        // A bundle is no certificate: the half that is there is sent, and the peer refuses it by name.
        Some(SecretSource::TrustFile(path)) => {
            context.tls_certificates = vec![proto::TlsCertificate {
                certificate_chain: Some(field::file(path)),
                ..Default::default()
            }];
        }
        Some(SecretSource::Ads(name)) => {
            context.tls_certificate_sds_secret_configs = vec![sds(name, field::ads())];
        }
        Some(SecretSource::Sds { name, cluster }) => {
            context.tls_certificate_sds_secret_configs = vec![sds(name, socket_source(cluster))];
        }
    }
    context
}

fn encode_validation(validation: &Validation) -> ValidationContextType {
    let mut context = proto::CertificateValidationContext {
        match_typed_subject_alt_names: validation
            .subject_alt_names
            .iter()
            .map(encode_san)
            .collect(),
        ..Default::default()
    };
    let config = match &validation.trust {
        SecretSource::TrustFile(path) | SecretSource::CertificateFiles { chain: path, .. } => {
            context.trusted_ca = Some(field::file(path));
            return ValidationContextType::ValidationContext(context);
        }
        SecretSource::Ads(name) => sds(name, field::ads()),
        SecretSource::Sds { name, cluster } => sds(name, socket_source(cluster)),
    };
    ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
        default_validation_context: Some(context),
        validation_context_sds_secret_config: Some(config),
        ..Default::default()
    })
}

fn encode_san(san: &SanMatch) -> proto::SubjectAltNameMatcher {
    let (kind, name) = match san {
        SanMatch::Dns(name) => (SanType::Dns, name),
        SanMatch::Uri(name) => (SanType::Uri, name),
        SanMatch::Ip(name) => (SanType::IpAddress, name),
    };
    proto::SubjectAltNameMatcher {
        san_type: kind.into(),
        matcher: Some(matcher::StringMatcher {
            ignore_case: false,
            match_pattern: Some(MatchPattern::Exact(name.clone())),
        }),
        oid: String::new(),
    }
}

fn sds(name: &str, source: core::ConfigSource) -> proto::SdsSecretConfig {
    proto::SdsSecretConfig {
        name: name.to_owned(),
        sds_config: Some(source),
    }
}

/// SDS over the static cluster of the bootstrap that has a socket.
fn socket_source(cluster: &str) -> core::ConfigSource {
    let service = core::GrpcService {
        target_specifier: Some(TargetSpecifier::EnvoyGrpc(EnvoyGrpc {
            cluster_name: cluster.to_owned(),
            ..Default::default()
        })),
        ..Default::default()
    };
    core::ConfigSource {
        resource_api_version: core::ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::ApiConfigSource(
            core::ApiConfigSource {
                api_type: core::api_config_source::ApiType::Grpc.into(),
                transport_api_version: core::ApiVersion::V3.into(),
                grpc_services: vec![service],
                ..Default::default()
            },
        )),
        ..Default::default()
    }
}

fn decode_common(context: Option<proto::CommonTlsContext>) -> Checked<Common> {
    let proto::CommonTlsContext {
        tls_params,
        tls_certificates,
        tls_certificate_sds_secret_configs,
        tls_certificate_provider_instance,
        custom_tls_certificate_selector,
        tls_certificate_certificate_provider,
        tls_certificate_certificate_provider_instance,
        alpn_protocols,
        custom_handshaker,
        key_log,
        validation_context_type,
    } = context.unwrap_or_default();
    refuse!(
        tls_params,
        tls_certificate_provider_instance,
        custom_tls_certificate_selector,
        tls_certificate_certificate_provider,
        tls_certificate_certificate_provider_instance,
        custom_handshaker,
        key_log,
    );
    Ok(Common {
        certificate: decode_certificate(tls_certificates, tls_certificate_sds_secret_configs)?,
        validation: validation_context_type.map(decode_validation).transpose()?,
        alpn: alpn_protocols,
    })
}

fn decode_certificate(
    mut files: Vec<proto::TlsCertificate>,
    mut secrets: Vec<proto::SdsSecretConfig>,
) -> Checked<Option<SecretSource>> {
    if files.len() + secrets.len() > 1 {
        return Err(Refusal::new(
            "tls_certificates",
            "must be one; several certificates are not supported",
        ));
    }
    if let Some(secret) = secrets.pop() {
        return decode_secret(secret)
            .map(Some)
            .under("tls_certificate_sds_secret_configs[0]");
    }
    let Some(file) = files.pop() else {
        return Ok(None);
    };
    decode_files(file).map(Some).under("tls_certificates[0]")
}

fn decode_files(certificate: proto::TlsCertificate) -> Checked<SecretSource> {
    let proto::TlsCertificate {
        certificate_chain,
        private_key,
        pkcs12,
        watched_directory: _, // our proxy watches every file it reads
        private_key_provider,
        password,
        ocsp_staple,
        signed_certificate_timestamp,
        tls_params,
    } = certificate;
    refuse!(
        pkcs12,
        private_key_provider,
        password,
        ocsp_staple,
        signed_certificate_timestamp,
        tls_params,
    );
    Ok(SecretSource::CertificateFiles {
        chain: field::file_name("certificate_chain", certificate_chain)?,
        key: field::file_name("private_key", private_key)?,
    })
}

fn decode_secret(config: proto::SdsSecretConfig) -> Checked<SecretSource> {
    let proto::SdsSecretConfig { name, sds_config } = config;
    let name = field::not_empty("name", name)?;
    let source = field::required("sds_config", sds_config)?;
    let Some(ConfigSourceSpecifier::ApiConfigSource(api)) = &source.config_source_specifier else {
        field::from_ads("sds_config", Some(source))?;
        return Ok(SecretSource::Ads(name));
    };
    let cluster = decode_socket_source(api).under("sds_config.api_config_source")?;
    Ok(SecretSource::Sds { name, cluster })
}

/// Ignored: pace, timeouts and validators of a stream that is not ours to tune from here.
fn decode_socket_source(api: &core::ApiConfigSource) -> Checked<String> {
    if api.api_type != core::api_config_source::ApiType::Grpc as i32 {
        return Err(Refusal::new("api_type", "must be GRPC"));
    }
    let [service] = api.grpc_services.as_slice() else {
        return Err(Refusal::new("grpc_services", "must be one"));
    };
    let Some(TargetSpecifier::EnvoyGrpc(target)) = &service.target_specifier else {
        return Err(Refusal::new("grpc_services[0]", "must be envoy_grpc"));
    };
    field::not_empty(
        "grpc_services[0].envoy_grpc.cluster_name",
        target.cluster_name.clone(),
    )
}

fn decode_validation(kind: ValidationContextType) -> Checked<Validation> {
    match kind {
        ValidationContextType::ValidationContext(context) => {
            let Context { roots, crl, names } =
                decode_context(context).under("validation_context")?;
            if crl.is_some() {
                return Err(Refusal::new("validation_context.crl", CRL_ELSEWHERE));
            }
            Ok(Validation {
                trust: SecretSource::TrustFile(field::file_name(
                    "validation_context.trusted_ca",
                    roots,
                )?),
                subject_alt_names: names,
            })
        }
        ValidationContextType::ValidationContextSdsSecretConfig(config) => Ok(Validation {
            trust: decode_secret(config).under("validation_context_sds_secret_config")?,
            subject_alt_names: Vec::new(),
        }),
        ValidationContextType::CombinedValidationContext(combined) => {
            decode_combined(combined).under("combined_validation_context")
        }
        ValidationContextType::ValidationContextCertificateProvider(_) => Err(
            Refusal::unsupported("validation_context_certificate_provider"),
        ),
        ValidationContextType::ValidationContextCertificateProviderInstance(_) => Err(
            Refusal::unsupported("validation_context_certificate_provider_instance"),
        ),
    }
}

fn decode_combined(combined: CombinedCertificateValidationContext) -> Checked<Validation> {
    let CombinedCertificateValidationContext {
        default_validation_context,
        validation_context_sds_secret_config,
        validation_context_certificate_provider,
        validation_context_certificate_provider_instance,
    } = combined;
    refuse!(
        validation_context_certificate_provider,
        validation_context_certificate_provider_instance,
    );
    let context = default_validation_context.unwrap_or_default();
    let check = || {
        let Context {
            roots: trusted_ca,
            crl,
            names,
        } = decode_context(context)?;
        refuse!(trusted_ca, crl);
        Ok(names)
    };
    let subject_alt_names = check().under("default_validation_context")?;
    let secret = field::required(
        "validation_context_sds_secret_config",
        validation_context_sds_secret_config,
    )?;
    Ok(Validation {
        trust: decode_secret(secret).under("validation_context_sds_secret_config")?,
        subject_alt_names,
    })
}

const CRL_ELSEWHERE: &str = "must stand in the file of trusted_ca or beside it, in <file>.crl; or come by SDS with its bundle";

/// What a validation context says.
pub(crate) struct Context {
    pub(crate) roots: Option<core::DataSource>,
    pub(crate) crl: Option<core::DataSource>,
    pub(crate) names: Vec<SanMatch>,
}

/// Roots, revocation lists and names of a validation context; everything else it could say is refused.
pub(crate) fn decode_context(context: proto::CertificateValidationContext) -> Checked<Context> {
    let proto::CertificateValidationContext {
        trusted_ca,
        ca_certificate_provider_instance,
        system_root_certs,
        watched_directory: _, // our proxy watches every file it reads
        verify_certificate_spki,
        verify_certificate_hash,
        match_typed_subject_alt_names,
        match_subject_alt_names,
        require_signed_certificate_timestamp,
        crl,
        allow_expired_certificate,
        trust_chain_verification,
        custom_validator_config,
        only_verify_leaf_cert_crl,
        max_verify_depth,
        suppress_client_ca_list: _, // a hint to clients
    } = context;
    refuse!(
        ca_certificate_provider_instance,
        system_root_certs,
        verify_certificate_spki,
        verify_certificate_hash,
        match_subject_alt_names,
        require_signed_certificate_timestamp,
        allow_expired_certificate,
        trust_chain_verification,
        custom_validator_config,
        only_verify_leaf_cert_crl,
        max_verify_depth,
    );
    let names = field::each(
        "match_typed_subject_alt_names",
        match_typed_subject_alt_names,
        decode_san,
    )?;
    Ok(Context {
        roots: trusted_ca,
        crl,
        names,
    })
}

fn decode_san(san: proto::SubjectAltNameMatcher) -> Checked<SanMatch> {
    let proto::SubjectAltNameMatcher {
        san_type,
        matcher,
        oid,
    } = san;
    refuse!(oid);
    let matcher::StringMatcher {
        ignore_case,
        match_pattern,
    } = field::required("matcher", matcher)?;
    refuse!(ignore_case);
    let Some(MatchPattern::Exact(name)) = match_pattern else {
        return Err(Refusal::new("matcher", "must be exact"));
    };
    let name = field::not_empty("matcher.exact", name)?;
    match field::named("san_type", san_type)? {
        SanType::Dns => Ok(SanMatch::Dns(name)),
        SanType::Uri => Ok(SanMatch::Uri(name)),
        SanType::IpAddress => Ok(SanMatch::Ip(name)),
        other => Err(Refusal::new(
            "san_type",
            format_args!(
                "{} is not supported; use DNS, URI or IP_ADDRESS",
                other.as_str_name()
            ),
        )),
    }
}
