// SPDX-License-Identifier: Apache-2.0
//! The dashboard's files, built by `dashboard/` and embedded here. Anything that is no file is the one page (it routes
//! by itself); without a build, a page that says how to make one.

use axum::response::IntoResponse;
use axum::response::Response;
use http::HeaderName;
use http::HeaderValue;
use http::StatusCode;
use http::header::CACHE_CONTROL;
use http::header::CONTENT_SECURITY_POLICY;
use http::header::CONTENT_TYPE;
use http::header::REFERRER_POLICY;
use http::header::X_CONTENT_TYPE_OPTIONS;
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "../dashboard/dist"]
#[allow_missing = true]
struct Files;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; \
     connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const NOT_BUILT: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Pillion collector</title>\
     <h1>The dashboard is not built into this collector</h1>\
     <p>Run <code>cargo xtask setup</code> (or <code>npm ci &amp;&amp; npm run build</code> in <code>dashboard/</code>) and build \
     the collector again.</p><p>Its answers are at <a href=\"pillion/v1/map\">pillion/v1/map</a>, \
     <a href=\"pillion/v1/traces\">pillion/v1/traces</a> and <a href=\"pillion/v1/stats\">pillion/v1/stats</a>.</p></html>";

/// Answers any GET that no API took.
pub(crate) fn page(path: &str) -> Response {
    let name = path.trim_start_matches('/');
    if let Some(file) = Files::get(name).filter(|_| !name.is_empty()) {
        return answer(
            StatusCode::OK,
            content_type(name),
            caching(name),
            file.data.into_owned(),
        );
    }
    // A missing script must not be answered with a page: the browser would report nonsense.
    let last = name.rsplit('/').next().unwrap_or_default();
    if last.contains('.') || name.starts_with("pillion/") {
        return answer(
            StatusCode::NOT_FOUND,
            "text/plain; charset=utf-8",
            "no-store",
            b"no such file\n".to_vec(),
        );
    }
    let page = Files::get("index.html").map_or_else(
        || NOT_BUILT.as_bytes().to_vec(),
        |file| file.data.into_owned(),
    );
    answer(StatusCode::OK, "text/html; charset=utf-8", "no-cache", page)
}

/// Built files carry a hash of their content in their names.
fn caching(name: &str) -> &'static str {
    if name.starts_with("assets/") {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    }
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

fn answer(
    status: StatusCode,
    content_type: &'static str,
    cache: &'static str,
    body: Vec<u8>,
) -> Response {
    let headers: [(HeaderName, HeaderValue); 5] = [
        (CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (CACHE_CONTROL, HeaderValue::from_static(cache)),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    (status, headers, body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_the_page_is_the_page_and_a_missing_file_is_not() {
        let page_at = page("/traces/5960260323fc5b688855d396af79b496");
        assert_eq!(page_at.status(), StatusCode::OK);
        assert_eq!(page_at.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
        assert!(page_at.headers().contains_key(CONTENT_SECURITY_POLICY));
        assert_eq!(page("/assets/gone-1a2b.js").status(), StatusCode::NOT_FOUND);
        assert_eq!(page("/pillion/v1/nothing").status(), StatusCode::NOT_FOUND);
        assert_eq!(page("/../Cargo.toml").status(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn only_hashed_files_are_kept_forever() {
        assert!(caching("assets/index-1a2b.js").contains("immutable"));
        assert_eq!(caching("index.html"), "no-cache");
    }
}
