// SPDX-License-Identifier: Apache-2.0
//! The two indexes of a route table: authorities to virtual hosts, and paths to candidate routes, so that a thousand
//! routes cost what one does. Order is kept: among candidates the lowest position wins, whatever index found it.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use foldhash::HashMap;
use pillion_xds::route as xds;

use super::Rule;
use super::condition::Asked;
use super::path::PathMatch;

/// Authority lookup with Envoy's precedence: exact, longest suffix wildcard, longest prefix wildcard, `*`.
#[derive(Debug, Default)]
pub(super) struct Domains {
    exact: HashMap<Box<str>, usize>,
    suffix: HashMap<Box<str>, usize>,
    suffix_lengths: Vec<usize>,
    prefix: HashMap<Box<str>, usize>,
    prefix_lengths: Vec<usize>,
    any: Option<usize>,
}

impl Domains {
    pub(super) fn compile(hosts: &[xds::VirtualHost]) -> Result<Domains, String> {
        let mut domains = Domains::default();
        let mut seen = BTreeSet::new();
        for (index, host) in hosts.iter().enumerate() {
            for domain in &host.domains {
                let lower = domain.to_ascii_lowercase();
                if !seen.insert(lower.clone()) {
                    return Err(format!(
                        "virtual_hosts[{}].domains: {domain:?} is named twice; keep one",
                        host.name
                    ));
                }
                domains.insert(&lower, index);
            }
        }
        domains.suffix_lengths = lengths(&domains.suffix);
        domains.prefix_lengths = lengths(&domains.prefix);
        Ok(domains)
    }

    fn insert(&mut self, domain: &str, index: usize) {
        if domain == "*" {
            self.any = Some(index);
        } else if let Some(suffix) = domain.strip_prefix('*') {
            self.suffix.insert(Box::from(suffix), index);
        } else if let Some(prefix) = domain.strip_suffix('*') {
            self.prefix.insert(Box::from(prefix), index);
        } else {
            self.exact.insert(Box::from(domain), index);
        }
    }

    pub(super) fn find(&self, authority: &str) -> Option<usize> {
        if authority.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return self.find_lower(&authority.to_ascii_lowercase());
        }
        self.find_lower(authority)
    }

    fn find_lower(&self, authority: &str) -> Option<usize> {
        if let Some(found) = self.exact.get(authority) {
            return Some(*found);
        }
        // The wildcard stands for at least one character, so a suffix as long as the name does not match.
        let shorter = |length: &&usize| **length < authority.len();
        for length in self.suffix_lengths.iter().filter(shorter) {
            let from = authority.len() - length;
            if let Some(found) = authority
                .get(from..)
                .and_then(|suffix| self.suffix.get(suffix))
            {
                return Some(*found);
            }
        }
        for length in self.prefix_lengths.iter().filter(shorter) {
            if let Some(found) = authority
                .get(..*length)
                .and_then(|prefix| self.prefix.get(prefix))
            {
                return Some(*found);
            }
        }
        self.any
    }
}

fn lengths(map: &HashMap<Box<str>, usize>) -> Vec<usize> {
    let distinct: BTreeSet<usize> = map.keys().map(|key| key.len()).collect();
    distinct.into_iter().rev().collect()
}

/// The routes of one virtual host in order, with candidates found by path.
#[derive(Debug)]
pub(super) struct Routes {
    rules: Vec<Arc<Rule>>,
    exact: HashMap<Box<str>, Vec<u32>>,
    prefix: HashMap<Box<str>, Vec<u32>>,
    /// Distinct prefix lengths, shortest first.
    prefix_lengths: Vec<usize>,
    regex: Vec<u32>,
}

/// Candidate lists of one path: one exact, one regex, and one for each prefix length that hit. More hits than this are
/// walked in order without an index, which is correct and merely slower.
const LISTS: usize = 16;

impl Routes {
    pub(super) fn compile(rules: Vec<Rule>) -> Routes {
        let mut exact: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        let mut prefix: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        let mut regex = Vec::new();
        for (position, rule) in (0_u32..).zip(&rules) {
            match &rule.path {
                PathMatch::Exact(path) => exact.entry(path.to_string()).or_default().push(position),
                PathMatch::Prefix(path) => {
                    prefix.entry(path.to_string()).or_default().push(position)
                }
                PathMatch::Regex(_) => regex.push(position),
            }
        }
        let distinct: BTreeSet<usize> = prefix.keys().map(String::len).collect();
        Routes {
            rules: rules.into_iter().map(Arc::new).collect(),
            exact: exact
                .into_iter()
                .map(|(key, list)| (key.into_boxed_str(), list))
                .collect(),
            prefix: prefix
                .into_iter()
                .map(|(key, list)| (key.into_boxed_str(), list))
                .collect(),
            prefix_lengths: distinct.into_iter().collect(),
            regex,
        }
    }

    pub(super) fn first_match(&self, asked: &Asked<'_>) -> Option<&Arc<Rule>> {
        let mut lists: [&[u32]; LISTS] = [&[]; LISTS];
        let Some(number) = self.candidates(asked.path, &mut lists) else {
            return self
                .rules
                .iter()
                .find(|rule| rule.path.holds(asked.path) && rule.conditions.hold(asked));
        };
        let lists = &mut lists[..number];
        while let Some(nearest) = lists
            .iter_mut()
            .filter(|list| !list.is_empty())
            .min_by_key(|list| list[0])
        {
            let rule = &self.rules[nearest[0] as usize];
            *nearest = &nearest[1..];
            let path_holds =
                !matches!(rule.path, PathMatch::Regex(_)) || rule.path.holds(asked.path);
            if path_holds && rule.conditions.hold(asked) {
                return Some(rule);
            }
        }
        None
    }

    /// Fills `lists` with the positions whose path condition may hold; `None` when there are more lists than room.
    fn candidates<'r>(&'r self, path: &str, lists: &mut [&'r [u32]; LISTS]) -> Option<usize> {
        let exact = self.exact.get(path).map(Vec::as_slice);
        let regex = Some(self.regex.as_slice()).filter(|list| !list.is_empty());
        let prefixes = self
            .prefix_lengths
            .iter()
            .take_while(|length| **length <= path.len())
            .filter_map(|length| {
                path.get(..*length)
                    .and_then(|start| self.prefix.get(start))
                    .map(Vec::as_slice)
            });
        let mut number = 0;
        for list in exact.into_iter().chain(regex).chain(prefixes) {
            *lists.get_mut(number)? = list;
            number += 1;
        }
        Some(number)
    }
}
