// SPDX-License-Identifier: Apache-2.0
//! The keywords of filter expressions, and where each may stand. Tables for `parse`; knows no grammar.

use crate::filter::FlagWord;
use crate::filter::NumberWord;
use crate::filter::TextWord;

/// What a keyword may be said of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Trace,
    /// A service's own work or a call: inside `service(){…}` and `edge(){…}`.
    Part,
    /// Inside `rootcause.….…{…}`.
    Cause,
}

pub(super) const FLAGS: [(&str, FlagWord); 10] = [
    ("ok", FlagWord::Ok),
    ("error", FlagWord::Error),
    ("throttle", FlagWord::Throttle),
    ("fault", FlagWord::Fault),
    ("partial", FlagWord::Partial),
    ("inferred", FlagWord::Inferred),
    ("root", FlagWord::Root),
    ("first", FlagWord::First),
    ("last", FlagWord::Last),
    ("remote", FlagWord::Remote),
];
pub(super) const NUMBERS: [(&str, NumberWord); 5] = [
    ("responsetime", NumberWord::ResponseTime),
    ("duration", NumberWord::Duration),
    ("http.status", NumberWord::HttpStatus),
    ("index", NumberWord::Index),
    ("coverage", NumberWord::Coverage),
];
pub(super) const TEXTS: [(&str, TextWord); 12] = [
    ("http.url", TextWord::HttpUrl),
    ("http.method", TextWord::HttpMethod),
    ("http.useragent", TextWord::HttpUserAgent),
    ("http.clientip", TextWord::HttpClientIp),
    ("user", TextWord::User),
    ("name", TextWord::Name),
    ("type", TextWord::Type),
    ("message", TextWord::Message),
    ("availabilityzone", TextWord::AvailabilityZone),
    ("instance.id", TextWord::InstanceId),
    ("resource.arn", TextWord::ResourceArn),
    ("account.id", TextWord::AccountId),
];
/// Known inside root cause blocks alone.
const OF_CAUSES: [&str; 6] = ["first", "last", "index", "coverage", "remote", "message"];
/// Known inside root cause blocks as well.
const OF_BOTH: [&str; 4] = ["inferred", "name", "type", "account.id"];

pub(super) fn known(scope: Scope, word: &str) -> bool {
    match scope {
        Scope::Cause => OF_CAUSES.contains(&word) || OF_BOTH.contains(&word),
        Scope::Trace | Scope::Part => !OF_CAUSES.contains(&word),
    }
}

pub(super) fn find<T: Copy>(all: &[(&str, T)], word: &str) -> Option<T> {
    all.iter()
        .find(|(name, _)| *name == word)
        .map(|(_, found)| *found)
}

pub(super) fn keywords(scope: Scope) -> String {
    let words: Vec<&str> = FLAGS
        .iter()
        .map(|(word, _)| *word)
        .chain(NUMBERS.iter().map(|(word, _)| *word))
        .chain(TEXTS.iter().map(|(word, _)| *word))
        .filter(|word| known(scope, word))
        .collect();
    let complex = match scope {
        Scope::Trace => {
            ", annotation.<key>, service(…), edge(…, …), rootcause.…, group.name, group.arn, '!' or '('"
        }
        Scope::Part => ", annotation.<key>, '!' or '('",
        Scope::Cause => ", '!' or '('",
    };
    format!("a keyword: {}{complex}", words.join(", "))
}
