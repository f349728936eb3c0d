// SPDX-License-Identifier: Apache-2.0
//! What routes do: forward with weights, timeouts, retries and rewrites, or answer. Called by the route table's encode
//! and decode.

use std::time::Duration;

use super::Action;
use super::Forward;
use super::PathRewrite;
use super::RetryOn;
use super::RetryPolicy;
use super::WeightedCluster;
use super::matching::check_regex;
use super::matching::encode_regex;
use crate::field;
use crate::field::Checked;
use crate::field::Refusal;
use crate::field::Under;
use crate::field::refuse;
use crate::field::uint;
use crate::proto::matcher::RegexMatchAndSubstitute;
use crate::proto::route as proto;
use crate::proto::route::route_action::ClusterNotFoundResponseCode;
use crate::proto::route::route_action::ClusterSpecifier;
use crate::proto::route::route_action::HostRewriteSpecifier;
use crate::proto::route::weighted_cluster::ClusterWeight;

/// Envoy's route timeout when none is said, and App Mesh's.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Answer of a route whose weights are all zero.
const NOWHERE: u16 = 503;

impl Action {
    pub(super) fn encode(&self) -> proto::route::Action {
        match self {
            Action::Forward(forward) => match forward.encode() {
                Some(action) => proto::route::Action::Route(action),
                None => respond(NOWHERE, ""),
            },
            Action::Respond { status, body } => respond(*status, body),
        }
    }

    pub(super) fn check(action: proto::route::Action) -> Checked<Action> {
        match action {
            proto::route::Action::Route(action) => {
                let forward = Forward::check(action).under("route")?;
                Ok(Action::Forward(Box::new(forward)))
            }
            proto::route::Action::DirectResponse(answer) => {
                check_answer(answer).under("direct_response")
            }
            proto::route::Action::Redirect(_) => Err(Refusal::unsupported("redirect")),
            proto::route::Action::FilterAction(_) => Err(Refusal::unsupported("filter_action")),
            proto::route::Action::NonForwardingAction(_) => {
                Err(Refusal::unsupported("non_forwarding_action"))
            }
        }
    }
}

fn respond(status: u16, body: &str) -> proto::route::Action {
    proto::route::Action::DirectResponse(proto::DirectResponseAction {
        status: status.into(),
        body: (!body.is_empty()).then(|| field::inline(body)),
        body_format: None,
    })
}

fn check_answer(answer: proto::DirectResponseAction) -> Checked<Action> {
    let proto::DirectResponseAction {
        status,
        body,
        body_format,
    } = answer;
    refuse!(body_format);
    let status = u16::try_from(status)
        .ok()
        .filter(|status| (200..600).contains(status))
        .ok_or_else(|| Refusal::new("status", format_args!("{status} is not in 200 to 599")))?;
    let body = match body {
        None => String::new(),
        body => field::inline_text("body", body)?,
    };
    Ok(Action::Respond { status, body })
}

impl Forward {
    /// `None` if no cluster has any weight.
    fn encode(&self) -> Option<proto::RouteAction> {
        let specifier = match self.clusters.as_slice() {
            [only] if only.weight == 1 => ClusterSpecifier::Cluster(only.name.clone()),
            clusters if clusters.iter().all(|cluster| cluster.weight == 0) => return None,
            clusters => ClusterSpecifier::WeightedClusters(encode_weights(clusters)),
        };
        let (prefix_rewrite, regex_rewrite) = match &self.rewrite {
            None => (String::new(), None),
            Some(PathRewrite::Prefix(prefix)) => (prefix.clone(), None),
            Some(PathRewrite::Regex {
                pattern,
                substitution,
            }) => (
                String::new(),
                Some(RegexMatchAndSubstitute {
                    pattern: Some(encode_regex(pattern)),
                    substitution: substitution.clone(),
                }),
            ),
        };
        Some(proto::RouteAction {
            cluster_specifier: Some(specifier),
            timeout: Some(field::encode_duration(self.timeout)),
            idle_timeout: self.idle_timeout.map(field::encode_duration),
            retry_policy: self.retry.as_ref().map(RetryPolicy::encode),
            prefix_rewrite,
            regex_rewrite,
            host_rewrite_specifier: self
                .host_rewrite
                .clone()
                .map(HostRewriteSpecifier::HostRewriteLiteral),
            ..Default::default()
        })
    }

    fn check(action: proto::RouteAction) -> Checked<Forward> {
        let proto::RouteAction {
            cluster_not_found_response_code,
            metadata_match,
            prefix_rewrite,
            regex_rewrite,
            path_rewrite_policy,
            path_rewrite,
            append_x_forwarded_host,
            timeout,
            idle_timeout,
            flush_timeout,
            early_data_policy,
            retry_policy,
            retry_policy_typed_config,
            request_mirror_policies,
            priority,
            rate_limits,
            include_vh_rate_limits,
            hash_policy,
            cors,
            max_grpc_timeout,
            grpc_timeout_offset,
            upgrade_configs,
            internal_redirect_policy,
            internal_redirect_action,
            max_internal_redirects,
            hedge_policy,
            max_stream_duration,
            cluster_specifier,
            host_rewrite_specifier,
        } = action;
        refuse!(
            metadata_match,
            path_rewrite_policy,
            path_rewrite,
            append_x_forwarded_host,
            flush_timeout,
            early_data_policy,
            retry_policy_typed_config,
            request_mirror_policies,
            priority,
            rate_limits,
            include_vh_rate_limits,
            hash_policy,
            cors,
            max_grpc_timeout,
            grpc_timeout_offset,
            upgrade_configs,
            internal_redirect_policy,
            internal_redirect_action,
            max_internal_redirects,
            hedge_policy,
            max_stream_duration,
        );
        check_not_found(cluster_not_found_response_code)?;
        Ok(Forward {
            clusters: check_clusters(cluster_specifier)?,
            timeout: field::duration("timeout", timeout)?.unwrap_or(TIMEOUT),
            idle_timeout: field::duration("idle_timeout", idle_timeout)?,
            retry: retry_policy
                .map(RetryPolicy::check)
                .transpose()
                .under("retry_policy")?,
            rewrite: check_rewrite(prefix_rewrite, regex_rewrite)?,
            host_rewrite: check_host_rewrite(host_rewrite_specifier)?,
        })
    }
}

fn check_not_found(code: i32) -> Checked<()> {
    match field::named("cluster_not_found_response_code", code)? {
        ClusterNotFoundResponseCode::ServiceUnavailable => Ok(()),
        other => Err(Refusal::new(
            "cluster_not_found_response_code",
            format_args!("{} is not supported; leave it unset", other.as_str_name()),
        )),
    }
}

fn encode_weights(clusters: &[WeightedCluster]) -> proto::WeightedCluster {
    let weigh = |cluster: &WeightedCluster| ClusterWeight {
        name: cluster.name.clone(),
        weight: Some(uint(cluster.weight)),
        ..Default::default()
    };
    proto::WeightedCluster {
        clusters: clusters.iter().map(weigh).collect(),
        ..Default::default()
    }
}

fn check_clusters(specifier: Option<ClusterSpecifier>) -> Checked<Vec<WeightedCluster>> {
    match field::required("cluster_specifier", specifier)? {
        ClusterSpecifier::Cluster(name) => Ok(vec![WeightedCluster {
            name: field::not_empty("cluster", name)?,
            weight: 1,
        }]),
        ClusterSpecifier::WeightedClusters(weighted) => {
            check_weighted(weighted).under("weighted_clusters")
        }
        ClusterSpecifier::ClusterHeader(_) => Err(Refusal::unsupported("cluster_header")),
        ClusterSpecifier::ClusterSpecifierPlugin(_) => {
            Err(Refusal::unsupported("cluster_specifier_plugin"))
        }
        ClusterSpecifier::InlineClusterSpecifierPlugin(_) => {
            Err(Refusal::unsupported("inline_cluster_specifier_plugin"))
        }
    }
}

fn check_weighted(weighted: proto::WeightedCluster) -> Checked<Vec<WeightedCluster>> {
    let proto::WeightedCluster {
        clusters,
        total_weight: _, // deprecated and without effect: the sum counts
        runtime_key_prefix,
        random_value_specifier,
    } = weighted;
    refuse!(runtime_key_prefix, random_value_specifier);
    let clusters = field::each("clusters", clusters, check_weight)?;
    let total: u64 = clusters
        .iter()
        .map(|cluster| u64::from(cluster.weight))
        .sum();
    if total == 0 || total > u64::from(u32::MAX) {
        let why = format_args!("weights sum to {total}; they must sum to 1 to {}", u32::MAX);
        return Err(Refusal::new("clusters", why));
    }
    Ok(clusters)
}

fn check_weight(weight: ClusterWeight) -> Checked<WeightedCluster> {
    let ClusterWeight {
        name,
        cluster_header,
        weight,
        metadata_match,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        typed_per_filter_config,
        host_rewrite_specifier,
    } = weight;
    refuse!(
        cluster_header,
        metadata_match,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        typed_per_filter_config,
        host_rewrite_specifier,
    );
    Ok(WeightedCluster {
        name: field::not_empty("name", name)?,
        weight: field::required("weight", field::number(weight))?,
    })
}

fn check_rewrite(
    prefix: String,
    regex: Option<RegexMatchAndSubstitute>,
) -> Checked<Option<PathRewrite>> {
    match (prefix, regex) {
        (prefix, None) if prefix.is_empty() => Ok(None),
        (prefix, None) => Ok(Some(PathRewrite::Prefix(prefix))),
        (prefix, Some(regex)) if prefix.is_empty() => {
            let RegexMatchAndSubstitute {
                pattern,
                substitution,
            } = regex;
            let pattern = field::required("regex_rewrite.pattern", pattern)?;
            Ok(Some(PathRewrite::Regex {
                pattern: check_regex("regex_rewrite.pattern", pattern)?,
                substitution,
            }))
        }
        _ => Err(Refusal::new(
            "regex_rewrite",
            "cannot stand beside prefix_rewrite",
        )),
    }
}

fn check_host_rewrite(specifier: Option<HostRewriteSpecifier>) -> Checked<Option<String>> {
    match specifier {
        None => Ok(None),
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => {
            field::not_empty("host_rewrite_literal", host).map(Some)
        }
        Some(_) => Err(Refusal::new(
            "host_rewrite_specifier",
            "must be host_rewrite_literal",
        )),
    }
}

impl RetryPolicy {
    fn encode(&self) -> proto::RetryPolicy {
        let on: Vec<&str> = self.on.iter().map(|on| on.word()).collect();
        proto::RetryPolicy {
            retry_on: on.join(","),
            num_retries: Some(uint(self.max_retries)),
            per_try_timeout: self.per_try_timeout.map(field::encode_duration),
            retriable_status_codes: self
                .status_codes
                .iter()
                .map(|code| (*code).into())
                .collect(),
            ..Default::default()
        }
    }

    fn check(policy: proto::RetryPolicy) -> Checked<RetryPolicy> {
        let proto::RetryPolicy {
            retry_on,
            num_retries,
            per_try_timeout,
            per_try_idle_timeout,
            retry_priority,
            retry_host_predicate,
            retry_options_predicates,
            host_selection_retry_max_attempts: _, // counts for host predicates only
            retriable_status_codes,
            retry_back_off,
            rate_limited_retry_back_off,
            retriable_headers,
            retriable_request_headers,
            refresh_cluster_on_retry,
        } = policy;
        refuse!(
            per_try_idle_timeout,
            retry_priority,
            retry_host_predicate,
            retry_options_predicates,
            retry_back_off,
            rate_limited_retry_back_off,
            retriable_headers,
            retriable_request_headers,
            refresh_cluster_on_retry,
        );
        let words = retry_on.split(',').filter(|word| !word.is_empty());
        let on = field::each("retry_on", words.collect(), check_condition)?;
        let code = |code: u32| {
            u16::try_from(code)
                .map_err(|_| Refusal::new("code", format_args!("{code} is not an HTTP status")))
        };
        Ok(RetryPolicy {
            on,
            status_codes: field::each("retriable_status_codes", retriable_status_codes, code)?,
            max_retries: field::number(num_retries).unwrap_or(1),
            per_try_timeout: field::duration("per_try_timeout", per_try_timeout)?,
        })
    }
}

fn check_condition(word: &str) -> Checked<RetryOn> {
    let word = word.trim();
    RetryOn::ALL
        .into_iter()
        .find(|on| on.word() == word)
        .ok_or_else(|| Refusal::new("condition", format_args!("{word:?} is not supported")))
}

impl RetryOn {
    const ALL: [RetryOn; 12] = [
        RetryOn::ServerError,
        RetryOn::GatewayError,
        RetryOn::Retriable4xx,
        RetryOn::ConnectFailure,
        RetryOn::RefusedStream,
        RetryOn::Reset,
        RetryOn::Cancelled,
        RetryOn::DeadlineExceeded,
        RetryOn::Internal,
        RetryOn::ResourceExhausted,
        RetryOn::Unavailable,
        RetryOn::StatusCodes,
    ];

    /// Envoy's word for it in `retry_on`.
    pub fn word(self) -> &'static str {
        match self {
            RetryOn::ServerError => "5xx",
            RetryOn::GatewayError => "gateway-error",
            RetryOn::Retriable4xx => "retriable-4xx",
            RetryOn::ConnectFailure => "connect-failure",
            RetryOn::RefusedStream => "refused-stream",
            RetryOn::Reset => "reset",
            RetryOn::Cancelled => "cancelled",
            RetryOn::DeadlineExceeded => "deadline-exceeded",
            RetryOn::Internal => "internal",
            RetryOn::ResourceExhausted => "resource-exhausted",
            RetryOn::Unavailable => "unavailable",
            RetryOn::StatusCodes => "retriable-status-codes",
        }
    }
}
