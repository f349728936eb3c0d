// SPDX-License-Identifier: Apache-2.0
//! How a cluster protects itself: circuit breakers, outlier detection, health checks. Called by the cluster's encode
//! and decode.

use std::time::Duration;

use super::CircuitBreakers;
use super::HealthCheck;
use super::OutlierDetection;
use super::Probe;
use super::RetryBudget;
use crate::field;
use crate::field::Checked;
use crate::field::Holds;
use crate::field::Refusal;
use crate::field::Under;
use crate::field::number;
use crate::field::refuse;
use crate::field::uint;
use crate::proto::cluster as proto;
use crate::proto::cluster::circuit_breakers::Thresholds;
use crate::proto::cluster::circuit_breakers::thresholds;
use crate::proto::core;
use crate::proto::core::health_check::GrpcHealthCheck;
use crate::proto::core::health_check::HealthChecker;
use crate::proto::core::health_check::HttpHealthCheck;
use crate::proto::core::health_check::TcpHealthCheck;
use crate::proto::google::protobuf;
use crate::proto::kind::CodecClientType;
use crate::proto::kind::Percent;

pub(super) fn encode_limits(limits: &CircuitBreakers) -> Option<proto::CircuitBreakers> {
    if *limits == CircuitBreakers::default() {
        return None;
    }
    let thresholds = Thresholds {
        priority: core::RoutingPriority::Default.into(),
        max_connections: limits.max_connections.map(uint),
        max_pending_requests: limits.max_pending_requests.map(uint),
        max_requests: limits.max_requests.map(uint),
        max_retries: limits.max_retries.map(uint),
        retry_budget: limits.retry_budget.map(encode_budget),
        ..Default::default()
    };
    Some(proto::CircuitBreakers {
        thresholds: vec![thresholds],
        per_host_thresholds: Vec::new(),
    })
}

pub(super) fn decode_limits(limits: Option<proto::CircuitBreakers>) -> Checked<CircuitBreakers> {
    let proto::CircuitBreakers {
        mut thresholds,
        per_host_thresholds,
    } = limits.unwrap_or_default();
    refuse!(per_host_thresholds);
    let Some(first) = thresholds.pop() else {
        return Ok(CircuitBreakers::default());
    };
    field::unset("thresholds[1]", &thresholds)?;
    let Thresholds {
        priority,
        max_connections,
        max_pending_requests,
        max_requests,
        max_retries,
        retry_budget,
        track_remaining: _, // statistics only
        max_connection_pools,
    } = first;
    let check = || {
        // Routes with a priority are refused, so only the default one can ever be asked for.
        refuse!(priority, max_connection_pools);
        retry_budget.map(decode_budget).transpose()
    };
    let retry_budget = check().under("thresholds[0]")?;
    Ok(CircuitBreakers {
        max_connections: number(max_connections),
        max_pending_requests: number(max_pending_requests),
        max_requests: number(max_requests),
        max_retries: number(max_retries),
        retry_budget,
    })
}

fn encode_budget(budget: RetryBudget) -> thresholds::RetryBudget {
    let percent = Percent {
        value: budget.percent,
    };
    thresholds::RetryBudget {
        budget_percent: Some(percent),
        min_retry_concurrency: Some(uint(budget.min_concurrency)),
        ..Default::default()
    }
}

fn decode_budget(budget: thresholds::RetryBudget) -> Checked<RetryBudget> {
    let thresholds::RetryBudget {
        budget_percent,
        budget_interval,
        min_retry_concurrency,
    } = budget;
    let defaults = RetryBudget::default();
    let percent = budget_percent.map_or(defaults.percent, |percent| percent.value);
    if !(0.0..=100.0).contains(&percent) {
        let why = format!("is {percent}; use 0 to 100");
        return Err(Refusal::new("retry_budget.budget_percent", why));
    }
    field::unset("retry_budget.budget_interval", &budget_interval)?;
    Ok(RetryBudget {
        percent,
        min_concurrency: number(min_retry_concurrency).unwrap_or(defaults.min_concurrency),
    })
}

/// Envoy ejects by success rate unless told not to; App Mesh knew only errors in a row.
pub(super) fn encode_outlier(outlier: &OutlierDetection) -> proto::OutlierDetection {
    proto::OutlierDetection {
        consecutive_5xx: Some(uint(outlier.consecutive_5xx)),
        interval: Some(field::encode_duration(outlier.interval)),
        base_ejection_time: Some(field::encode_duration(outlier.base_ejection_time)),
        max_ejection_percent: Some(uint(outlier.max_ejection_percent)),
        enforcing_success_rate: Some(uint(0)),
        always_eject_one_host: Some(field::flag(true)),
        ..Default::default()
    }
}

/// Numbers that only tune a kind of ejection which is off are ignored.
pub(super) fn decode_outlier(outlier: proto::OutlierDetection) -> Checked<OutlierDetection> {
    let proto::OutlierDetection {
        consecutive_5xx,
        interval,
        base_ejection_time,
        max_ejection_percent,
        enforcing_consecutive_5xx,
        enforcing_success_rate,
        success_rate_minimum_hosts: _,
        success_rate_request_volume: _,
        success_rate_stdev_factor: _,
        consecutive_gateway_failure: _,
        enforcing_consecutive_gateway_failure,
        split_external_local_origin_errors,
        consecutive_local_origin_failure: _,
        enforcing_consecutive_local_origin_failure: _,
        enforcing_local_origin_success_rate: _,
        failure_percentage_threshold: _,
        enforcing_failure_percentage,
        enforcing_failure_percentage_local_origin: _,
        failure_percentage_minimum_hosts: _,
        failure_percentage_request_volume: _,
        max_ejection_time,
        max_ejection_time_jitter,
        successful_active_health_check_uneject_host,
        monitors,
        always_eject_one_host,
        detect_degraded_hosts,
    } = outlier;
    refuse!(
        split_external_local_origin_errors,
        max_ejection_time,
        max_ejection_time_jitter,
        monitors
    );
    percent(
        "enforcing_consecutive_5xx",
        enforcing_consecutive_5xx,
        100,
        100,
    )?;
    percent("enforcing_success_rate", enforcing_success_rate, 100, 0)?;
    percent(
        "enforcing_consecutive_gateway_failure",
        enforcing_consecutive_gateway_failure,
        0,
        0,
    )?;
    percent(
        "enforcing_failure_percentage",
        enforcing_failure_percentage,
        0,
        0,
    )?;
    field::only(
        "successful_active_health_check_uneject_host",
        successful_active_health_check_uneject_host,
        Holds::True,
    )?;
    field::only("detect_degraded_hosts", detect_degraded_hosts, Holds::False)?;
    if field::truth(always_eject_one_host) != Some(true) {
        return Err(Refusal::new("always_eject_one_host", "must be true"));
    }
    let positive = |name: &str, value, default| match field::duration(name, value)? {
        Some(Duration::ZERO) => Err(Refusal::new(name, "must be longer than zero")),
        value => Ok(value.unwrap_or(default)),
    };
    Ok(OutlierDetection {
        consecutive_5xx: number(consecutive_5xx).unwrap_or(5),
        interval: positive("interval", interval, Duration::from_secs(10))?,
        base_ejection_time: positive(
            "base_ejection_time",
            base_ejection_time,
            Duration::from_secs(30),
        )?,
        max_ejection_percent: number(max_ejection_percent).unwrap_or(10),
    })
}

/// The share of detections that are acted on; unset it is Envoy's `default`, and only `supported` is ours.
fn percent(
    name: &str,
    value: Option<protobuf::UInt32Value>,
    default: u32,
    supported: u32,
) -> Checked<()> {
    let value = number(value).unwrap_or(default);
    if value == supported {
        return Ok(());
    }
    let why = format_args!("{value} is not supported; set it to {supported}").to_string();
    Err(Refusal::new(name, why))
}

pub(super) fn encode_check(check: &HealthCheck) -> core::HealthCheck {
    let interval = field::encode_duration(check.interval);
    let checker = match &check.probe {
        Probe::Http { path, http2 } => {
            let codec = if *http2 {
                CodecClientType::Http2
            } else {
                CodecClientType::Http1
            };
            HealthChecker::HttpHealthCheck(HttpHealthCheck {
                path: path.clone(),
                codec_client_type: codec.into(),
                ..Default::default()
            })
        }
        Probe::Grpc => HealthChecker::GrpcHealthCheck(GrpcHealthCheck::default()),
        Probe::Tcp => HealthChecker::TcpHealthCheck(TcpHealthCheck::default()),
    };
    core::HealthCheck {
        timeout: Some(field::encode_duration(check.timeout)),
        interval: Some(interval),
        // Envoy probes an idle cluster once a minute unless told otherwise; App Mesh knew one interval.
        no_traffic_interval: Some(interval),
        healthy_threshold: Some(uint(check.healthy_threshold)),
        unhealthy_threshold: Some(uint(check.unhealthy_threshold)),
        health_checker: Some(checker),
        ..Default::default()
    }
}

/// Ignored: jitter, connection reuse, the slower pace for idle clusters (ours probes at one interval), and event logs.
pub(super) fn decode_check(check: core::HealthCheck) -> Checked<HealthCheck> {
    let core::HealthCheck {
        timeout,
        interval,
        initial_jitter: _,
        interval_jitter: _,
        interval_jitter_percent: _,
        unhealthy_threshold,
        healthy_threshold,
        alt_port,
        reuse_connection: _,
        no_traffic_interval: _,
        no_traffic_healthy_interval: _,
        unhealthy_interval,
        unhealthy_edge_interval,
        healthy_edge_interval,
        event_log_path: _,
        event_logger: _,
        event_service: _,
        always_log_health_check_failures: _,
        always_log_health_check_success: _,
        tls_options,
        transport_socket_match_criteria,
        health_checker,
    } = check;
    refuse!(
        alt_port,
        unhealthy_interval,
        unhealthy_edge_interval,
        healthy_edge_interval,
        tls_options,
        transport_socket_match_criteria,
    );
    let positive = |name: &str, value| {
        field::required(name, field::duration(name, value)?.filter(|d| !d.is_zero()))
    };
    let threshold =
        |name: &str, value| field::required(name, number(value).filter(|threshold| *threshold > 0));
    Ok(HealthCheck {
        probe: decode_probe(health_checker)?,
        interval: positive("interval", interval)?,
        timeout: positive("timeout", timeout)?,
        healthy_threshold: threshold("healthy_threshold", healthy_threshold)?,
        unhealthy_threshold: threshold("unhealthy_threshold", unhealthy_threshold)?,
    })
}

fn decode_probe(checker: Option<HealthChecker>) -> Checked<Probe> {
    match checker {
        Some(HealthChecker::HttpHealthCheck(check)) => {
            decode_http_probe(check).under("http_health_check")
        }
        Some(HealthChecker::GrpcHealthCheck(grpc_health_check)) => {
            refuse!(grpc_health_check);
            Ok(Probe::Grpc)
        }
        Some(HealthChecker::TcpHealthCheck(tcp_health_check)) => {
            refuse!(tcp_health_check);
            Ok(Probe::Tcp)
        }
        Some(HealthChecker::CustomHealthCheck(_)) => {
            Err(Refusal::unsupported("custom_health_check"))
        }
        None => Err(Refusal::missing("health_checker")),
    }
}

fn decode_http_probe(check: HttpHealthCheck) -> Checked<Probe> {
    let HttpHealthCheck {
        host,
        path,
        send,
        receive,
        response_buffer_size: _, // bodies are not looked at
        request_headers_to_add,
        request_headers_to_remove,
        expected_statuses,
        retriable_statuses,
        codec_client_type,
        service_name_matcher,
        method,
    } = check;
    refuse!(
        host,
        send,
        receive,
        request_headers_to_add,
        request_headers_to_remove,
        expected_statuses,
        retriable_statuses,
        service_name_matcher,
        method,
    );
    if !path.starts_with('/') {
        return Err(Refusal::new(
            "path",
            format_args!("{path:?} must begin with /"),
        ));
    }
    let http2 = match field::named("codec_client_type", codec_client_type)? {
        CodecClientType::Http1 => false,
        CodecClientType::Http2 => true,
        CodecClientType::Http3 => {
            return Err(Refusal::new("codec_client_type", "HTTP3 is not supported"));
        }
    };
    Ok(Probe::Http { path, http2 })
}
