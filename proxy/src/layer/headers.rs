// SPDX-License-Identifier: Apache-2.0
//! Headers that a hop adds to a request: an id, the scheme it came by, and at an edge the caller's address. What callers
//! would tell the proxy with `x-envoy-*` (timeouts, retries) is taken out, as App Mesh ignored it; at an edge everything
//! of that name.

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use tower::Layer;
use tower::Service;
use tower::layer::layer_fn;

use super::ready_as_inner;
use crate::exchange::Call;
use crate::exchange::Exchange;
use crate::http::stack::Answering;
use crate::http::stack::HttpService;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");
/// Envoy's list of what a request from elsewhere must not decide; it removes them unless the caller is internal, which
/// by default nobody is.
const COMMANDS: [&str; 13] = [
    "x-envoy-internal",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-max-retries",
    "x-envoy-retry-on",
    "x-envoy-retry-grpc-on",
    "x-envoy-retriable-status-codes",
    "x-envoy-retriable-header-names",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-force-trace",
    "x-envoy-ip-tags",
];
/// A chain of addresses longer than this is not appended to.
const LONGEST_CHAIN: usize = 4096;

/// The layer.
pub fn layer<S>() -> impl Layer<S, Service = Headers<S>> + Clone {
    layer_fn(|inner| Headers { inner })
}

/// The service.
#[derive(Clone)]
pub struct Headers<S> {
    inner: S,
}

impl<S: HttpService> Service<Call> for Headers<S> {
    ready_as_inner!();

    fn call(&mut self, mut call: Call) -> Answering {
        dress(call.request.headers_mut(), &call.exchange);
        self.inner.call(call)
    }
}

fn dress(headers: &mut HeaderMap, exchange: &Exchange) {
    let edge = exchange.served.http().manager.use_remote_address;
    if edge {
        forget_ours(headers);
        let caller = &exchange.connection.forwarded;
        append_address(headers, caller);
        headers.insert(EXTERNAL_ADDRESS.clone(), caller.clone());
    } else {
        for command in COMMANDS {
            headers.remove(command);
        }
    }
    if edge || !headers.contains_key(&FORWARDED_PROTO) {
        headers.insert(
            FORWARDED_PROTO.clone(),
            HeaderValue::from_static(exchange.asked.scheme),
        );
    }
    // At an edge the id is ours: one that a stranger chose would be found in other callers' logs.
    if edge || !headers.contains_key(&REQUEST_ID) {
        let random =
            (u128::from(exchange.worker.random()) << 64) | u128::from(exchange.worker.random());
        if let Ok(id) = HeaderValue::from_bytes(&uuid(random)) {
            headers.insert(REQUEST_ID.clone(), id);
        }
    }
}

/// Takes out what only we may say. Most callers say nothing of the kind.
fn forget_ours(headers: &mut HeaderMap) {
    let is_ours = |name: &&HeaderName| name.as_str().starts_with("x-envoy-");
    if !headers.keys().any(|name| is_ours(&name)) {
        return;
    }
    let ours: Vec<HeaderName> = headers.keys().filter(is_ours).cloned().collect();
    for name in ours {
        headers.remove(name);
    }
}

fn append_address(headers: &mut HeaderMap, address: &HeaderValue) {
    let chain: Vec<&str> = headers
        .get_all(&FORWARDED_FOR)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    let known = chain.join(",");
    let next = if known.is_empty() || known.len() > LONGEST_CHAIN {
        Ok(address.clone())
    } else {
        HeaderValue::from_bytes(&[known.as_bytes(), b",", address.as_bytes()].concat())
    };
    if let Ok(value) = next {
        headers.insert(FORWARDED_FOR.clone(), value);
    }
}

/// A random (version 4) UUID of these bits.
fn uuid(random: u128) -> [u8; 36] {
    let bits = (random & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (index, byte) in bits.to_be_bytes().into_iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            at += 1;
        }
        for digit in [byte >> 4, byte & 0xf] {
            text[at] = b"0123456789abcdef"[usize::from(digit)];
            at += 1;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_a_version_4_uuid() {
        assert_eq!(&uuid(0), b"00000000-0000-4000-8000-000000000000");
        assert_eq!(&uuid(u128::MAX), b"ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[test]
    fn the_caller_s_address_goes_behind_what_is_known() {
        let mut headers = HeaderMap::new();
        headers.append(&FORWARDED_FOR, HeaderValue::from_static("1.1.1.1"));
        headers.append(&FORWARDED_FOR, HeaderValue::from_static("2.2.2.2"));
        append_address(&mut headers, &HeaderValue::from_static("3.3.3.3"));
        assert_eq!(headers.get_all(&FORWARDED_FOR).iter().count(), 1);
        assert_eq!(headers[&FORWARDED_FOR], "1.1.1.1,2.2.2.2,3.3.3.3");
    }
}
