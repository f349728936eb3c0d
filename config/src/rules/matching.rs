// SPDX-License-Identifier: Apache-2.0
//! Rules of what a route or gateway route matches, and of what a gateway rewrites.

use regex::RegexBuilder;

use super::{At, Findings};
use crate::check::shown;

/// Room for a compiled regex. App Mesh's bound was a program size of RE2, which says nothing here; this one keeps
/// a 255-character text from costing megabytes in every sidecar.
const REGEX_SIZE: usize = 1 << 20;

/// A prefix and a whole path cannot be told to the proxy together.
pub(super) fn path_or_prefix(conditions: &At<'_>, found: &mut Findings) {
    conditions.at_most_one(&["prefix", "path"], found);
    begins_with_slash(conditions, "prefix", found);
}

pub(super) fn path(path: &At<'_>, found: &mut Findings) {
    path.exactly_one(&["exact", "regex"], found);
    regex(path, found);
}

pub(super) fn begins_with_slash(holder: &At<'_>, member: &str, found: &mut Findings) {
    if let Some((at, text)) = holder.text_at(member)
        && !text.starts_with('/')
    {
        found.push(&at, format!("must begin with `/`, is {}", shown(text)));
    }
}

pub(super) fn regex(holder: &At<'_>, found: &mut Findings) {
    let Some((at, text)) = holder.text_at("regex") else {
        return;
    };
    if let Err(error) = RegexBuilder::new(text).size_limit(REGEX_SIZE).build() {
        let why = error.to_string();
        // The error draws the place over several lines; the last one says what is wrong.
        let why = why
            .lines()
            .last()
            .unwrap_or_default()
            .trim_start_matches("error: ");
        found.push(
            &at,
            format!("must be a regular expression, is {}: {why}", shown(text)),
        );
    }
}

/// `^[!-9;-~]+$`: printable and no colon, so pseudo headers cannot be matched.
pub(super) fn header_name(at: &At<'_>, found: &mut Findings) {
    if let Some(bad) = at
        .text()
        .and_then(|name| name.chars().find(|c| !c.is_ascii_graphic() || *c == ':'))
    {
        found.push(
            at,
            format!("must be printable ASCII without space or colon, has {bad:?}"),
        );
    }
}

pub(super) fn range(range: &At<'_>, found: &mut Findings) {
    let bound = |name| range.get(name).and_then(|at| at.value.as_i64());
    if let (Some(start), Some(end)) = (bound("start"), bound("end"))
        && end <= start
    {
        found.push(
            &range.would_be("end"),
            format!("must be greater than start ({start}), is {end}"),
        );
    }
}

pub(super) fn method_needs_service(conditions: &At<'_>, found: &mut Findings) {
    if conditions.has("methodName") && !conditions.has("serviceName") {
        found.push(
            &conditions.would_be("serviceName"),
            "is required together with methodName",
        );
    }
}

/// What replaces a prefix has no place where a whole path was matched.
pub(super) fn rewrite_fits_match(route: &At<'_>, found: &mut Findings) {
    let value =
        (route.get("action")).and_then(|action| action.get("rewrite")?.get("prefix")?.get("value"));
    let by_path = route
        .get("match")
        .is_some_and(|m| m.has("path") && !m.has("prefix"));
    if let Some(value) = value.filter(|_| by_path) {
        found.push(
            &value,
            "replaces a matched prefix, but the match is by path; use rewrite.path.exact",
        );
    }
}

pub(super) fn prefix_rewrite(rewrite: &At<'_>, found: &mut Findings) {
    rewrite.at_most_one(&["defaultPrefix", "value"], found);
    begins_with_slash(rewrite, "value", found);
}

const RESERVED_PATHS: [&str; 2] = ["/aws-appmesh", "/aws-app-mesh"];
const RESERVED_SERVICES: [&str; 2] = ["aws.appmesh", "aws.app-mesh"];

/// App Mesh kept some paths and services of the edge to itself.
pub(super) fn edge_path_is_free(conditions: &At<'_>, found: &mut Findings) {
    reserved(conditions, "prefix", RESERVED_PATHS, found);
    if let Some(path) = conditions.get("path") {
        reserved(&path, "exact", RESERVED_PATHS, found);
    }
}

pub(super) fn edge_service_is_free(conditions: &At<'_>, found: &mut Findings) {
    reserved(conditions, "serviceName", RESERVED_SERVICES, found);
}

fn reserved(holder: &At<'_>, member: &str, starts: [&str; 2], found: &mut Findings) {
    let Some((at, text)) = holder.text_at(member) else {
        return;
    };
    if let Some(start) = starts.into_iter().find(|start| text.starts_with(start)) {
        let message = format!(
            "must not begin with `{start}`, which is reserved, is {}",
            shown(text)
        );
        found.push(&at, message);
    }
}
