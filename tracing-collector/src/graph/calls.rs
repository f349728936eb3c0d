// SPDX-License-Identifier: Apache-2.0
//! The service map as its owner thinks of it: a proxy and the app beside it are one party, an edge counts every try
//! that left the caller's proxy, and outside callers are the one party `client`.

use std::collections::BTreeSet;
use std::collections::HashMap;

use crate::graph::CLIENT_TYPE;
use crate::graph::Contribution;
use crate::graph::Key;
use crate::span::Kind;
use crate::span::Node;
use crate::span::PROXY_TYPE;
use crate::span::Span;
use crate::span::UNKNOWN_TYPE;
use crate::trace::Trace;

pub(super) fn contributions(trace: &Trace) -> Vec<Contribution> {
    let mut parties: Vec<Option<Node>> =
        (0..trace.spans.len()).map(|at| party(trace, at)).collect();
    share_types(&mut parties);
    let view = View { trace, parties };
    let mut found = Vec::new();
    for at in 0..trace.spans.len() {
        let Some(own) = view.parties[at].as_ref() else {
            continue;
        };
        if trace.is_entry(at) && !is_try(&trace.spans[at]) {
            found.extend(view.served(at, own));
        }
        found.extend(view.called(at, own));
    }
    found
}

/// A party whose proxy and app both speak has the app's type: it says more.
fn share_types(parties: &mut [Option<Node>]) {
    let mut types: HashMap<String, String> = HashMap::new();
    for node in parties.iter().flatten() {
        let known = types.entry(node.name.clone()).or_default();
        if known.is_empty() || type_rank(&node.kind) > type_rank(known) {
            known.clone_from(&node.kind);
        }
    }
    for node in parties.iter_mut().flatten() {
        node.kind.clone_from(&types[&node.name]);
    }
}

/// How much a type says about a party.
pub(crate) fn type_rank(kind: &str) -> u8 {
    match kind {
        UNKNOWN_TYPE => 0,
        "remote" => 1,
        PROXY_TYPE => 2,
        _ => 3,
    }
}

/// One call made by a proxy.
fn is_try(span: &Span) -> bool {
    span.proxy.is_some() && span.kind == Kind::Client
}

fn party(trace: &Trace, at: usize) -> Option<Node> {
    let owner = trace.owner(at)?;
    match &owner.proxy {
        Some(proxy) => Some(Node::new(&proxy.node, PROXY_TYPE)),
        None => owner.service.clone(),
    }
}

/// The names of every party in a trace, for a list of traces.
pub(crate) fn party_names(trace: &Trace) -> BTreeSet<String> {
    trace
        .entries()
        .filter_map(|at| party(trace, at))
        .map(|node| node.name)
        .collect()
}

/// The party a span belongs to.
pub(crate) fn party_name(trace: &Trace, at: usize) -> Option<String> {
    party(trace, at).map(|node| node.name)
}

struct View<'t> {
    trace: &'t Trace,
    parties: Vec<Option<Node>>,
}

impl View<'_> {
    fn name(&self, at: usize) -> Option<&str> {
        self.parties[at].as_ref().map(|node| node.name.as_str())
    }

    /// A request that a party took, counted where it entered: at the proxy, not again at the app behind it.
    fn served(&self, at: usize, own: &Node) -> Vec<Contribution> {
        let span = &self.trace.spans[at];
        let parent = self.trace.parent(at);
        // A named parent that never came was lost when the trace has a beginning elsewhere: a caller inside, unknown.
        // Without one it is the outside caller whose own spans nobody sends us.
        let lost = parent.is_none() && span.parent.is_some() && self.trace.has_beginning();
        let source = match parent {
            None => CLIENT_TYPE,
            Some(parent) => match self.name(parent) {
                Some(name) if name != own.name => name,
                _ => return Vec::new(),
            },
        };
        let node = Contribution::of(Key::Party(own.clone()), span);
        let node = node.map(|node| Contribution {
            root: parent.is_none() && !lost,
            ..node
        });
        let measured = parent.is_some_and(|parent| self.counts_as_call(parent));
        let key = Key::Calls {
            source: source.to_owned(),
            target: own.name.clone(),
        };
        let edge = if measured || lost {
            None
        } else {
            Contribution::of(key, span)
        };
        node.into_iter().chain(edge).collect()
    }

    /// Not a call that the app handed to its own proxy: that one counts every try, this one would count them again.
    fn counts_as_call(&self, at: usize) -> bool {
        let span = &self.trace.spans[at];
        if is_try(span) {
            return true;
        }
        let handed_over = |child: usize| {
            self.trace.spans[child].proxy.is_some() && self.name(child) == self.name(at)
        };
        span.calls.is_some()
            && !self
                .trace
                .children(at)
                .iter()
                .any(|child| handed_over(*child))
    }

    fn called(&self, at: usize, own: &Node) -> Vec<Contribution> {
        if !self.counts_as_call(at) {
            return Vec::new();
        }
        let span = &self.trace.spans[at];
        let edge = |target: &str, between_us: Option<u64>| {
            let key = Key::Calls {
                source: own.name.clone(),
                target: target.to_owned(),
            };
            Contribution::of(key, span).map(|edge| Contribution { between_us, ..edge })
        };
        let mut reached: Vec<(&str, usize)> = self
            .trace
            .entry_children(at)
            .filter_map(|child| Some((self.name(child)?, child)))
            .collect();
        reached.sort_unstable();
        reached.dedup_by_key(|(name, _)| *name);
        if reached.is_empty() {
            let Some(target) = &span.calls else {
                return Vec::new();
            };
            if span.proxy.is_some() {
                return edge(without_mesh(&target.name), None).into_iter().collect();
            }
            let node = Contribution::of(Key::Party(target.clone()), span);
            let node = node.map(|node| Contribution {
                inferred: true,
                ..node
            });
            return node.into_iter().chain(edge(&target.name, None)).collect();
        }
        reached
            .into_iter()
            .filter_map(|(target, child)| edge(target, self.between(at, child)))
            .collect()
    }

    /// The call's time less the callee's own: what two proxies and the wire took.
    fn between(&self, at: usize, callee: usize) -> Option<u64> {
        let app = self.trace.spans[callee].proxy.as_ref().and_then(|_| {
            self.trace.entry_children(callee).find(|child| {
                self.trace.spans[*child].proxy.is_none() && self.name(*child) == self.name(callee)
            })
        });
        let work = self.trace.spans[app.unwrap_or(callee)].duration_us()?;
        Some(self.trace.spans[at].duration_us()?.saturating_sub(work))
    }
}

/// Proxies name their targets `<mesh>/<node>`.
pub(crate) fn without_mesh(name: &str) -> &str {
    name.split_once('/').map_or(name, |(_, node)| node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::span::Flags;
    use crate::span::Proxy;
    use crate::span::TraceId;
    use crate::trace::tests::span;

    fn proxy(id: u64, parent: u64, node: &str, kind: Kind) -> Span {
        let full = format!("shop/{node}");
        Span {
            kind,
            entry: kind == Kind::Server,
            service: Some(Node::new(&full, PROXY_TYPE)),
            proxy: Some(Proxy {
                node: node.to_owned(),
            }),
            ..span(id, parent, &full)
        }
    }

    fn calling(span: Span, target: &str) -> Span {
        Span {
            calls: Some(Node::new(target, "remote")),
            ..span
        }
    }

    #[test]
    fn a_span_whose_caller_was_lost_is_no_call_of_the_client() {
        let whole = vec![
            proxy(1, 0, "gateway", Kind::Server),
            calling(proxy(2, 1, "gateway", Kind::Client), "shop/web"),
            proxy(3, 2, "web", Kind::Server),
        ];
        let orphan = proxy(9, 8, "cart", Kind::Server);
        let drawn = edges([whole, vec![orphan]].concat());
        assert_eq!(
            drawn,
            named(&[("client", "gateway", 1), ("gateway", "web", 1)])
        );
    }

    #[test]
    fn a_caller_outside_that_named_itself_is_still_the_client() {
        let drawn = edges(vec![proxy(1, 77, "gateway", Kind::Server)]);
        assert_eq!(drawn, named(&[("client", "gateway", 1)]));
    }

    fn edges(spans: Vec<Span>) -> Vec<(String, String, usize)> {
        let mut counts = std::collections::BTreeMap::new();
        for contribution in contributions(&Trace::assemble(TraceId(1), spans)) {
            if let Key::Calls { source, target } = contribution.key {
                *counts.entry((source, target)).or_insert(0) += 1;
            }
        }
        counts
            .into_iter()
            .map(|((source, target), count)| (source, target, count))
            .collect()
    }

    fn named(list: &[(&str, &str, usize)]) -> Vec<(String, String, usize)> {
        list.iter()
            .map(|(source, target, count)| ((*source).to_owned(), (*target).to_owned(), *count))
            .collect()
    }

    #[test]
    fn gateway_web_catalog_is_three_edges_whatever_the_apps_say() {
        let skeleton = vec![
            proxy(1, 0, "gateway", Kind::Server),
            calling(proxy(2, 1, "gateway", Kind::Client), "shop/web"),
            proxy(3, 2, "web", Kind::Server),
            calling(proxy(4, 3, "web", Kind::Client), "shop/catalog-v1"),
            proxy(5, 4, "catalog-v1", Kind::Server),
        ];
        let expected = named(&[
            ("client", "gateway", 1),
            ("gateway", "web", 1),
            ("web", "catalog-v1", 1),
        ]);
        assert_eq!(edges(skeleton.clone()), expected);

        // The same with web's app and its own call reported by an SDK between the two halves of its proxy.
        let mut with_app = skeleton;
        with_app[3].parent = Some(crate::span::SpanId(7));
        with_app.push(Span {
            entry: true,
            ..span(6, 3, "web")
        });
        with_app.push(calling(span(7, 6, "web"), "catalog.local"));
        assert_eq!(edges(with_app), expected);
    }

    #[test]
    fn every_retry_is_a_call_of_its_own_and_one_that_reached_nobody_is_named_by_its_target() {
        let failed = Span {
            flags: Flags {
                fault: true,
                ..Flags::default()
            },
            ..calling(proxy(2, 1, "web", Kind::Client), "shop/payments")
        };
        let spans = vec![
            proxy(1, 0, "web", Kind::Server),
            failed,
            calling(proxy(3, 1, "web", Kind::Client), "shop/payments"),
            proxy(4, 3, "payments", Kind::Server),
        ];
        assert_eq!(
            edges(spans),
            named(&[("client", "web", 1), ("web", "payments", 2)])
        );
    }

    #[test]
    fn a_database_that_the_app_calls_past_the_proxy_is_an_edge_of_the_app() {
        let spans = vec![
            proxy(1, 0, "cart", Kind::Server),
            Span {
                entry: true,
                ..span(2, 1, "cart")
            },
            calling(span(3, 2, "cart"), "carts-table"),
        ];
        assert_eq!(
            edges(spans),
            named(&[("cart", "carts-table", 1), ("client", "cart", 1)])
        );
    }

    #[test]
    fn a_proxy_whose_app_sent_no_parent_makes_no_entry_of_its_call() {
        let spans = vec![
            calling(proxy(2, 9, "web", Kind::Client), "shop/cart"),
            proxy(3, 2, "cart", Kind::Server),
        ];
        assert_eq!(edges(spans), named(&[("web", "cart", 1)]));
    }
}
