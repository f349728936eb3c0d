// SPDX-License-Identifier: Apache-2.0
//! Finds when a service fails more than it should: minute by minute of data time, faults are held against what the last
//! clean hour says. Pure: the same minutes give the same insights, whenever they are looked at. Fed by
//! `query::insights`, which names, keeps and tells them.
//!
//! A minute is above its band when its faults exceed `n·p + 3·√(n·p·(1−p))`, with `p` the share of faults in the last
//! 60 clean minutes, at least half a per cent. Three such minutes of five, with five faults, open an insight; five
//! minutes without one close it. Of nodes that fail together the farthest downstream is the root cause.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;

use crate::graph::CLIENT_TYPE;
use crate::graph::Key;
use crate::graph::Tallies;
use crate::graph::Tally;
use crate::span::Node;

const CLEAN_MINUTES: usize = 60;
const LEAST_SHARE: f64 = 0.005;
const RECENT: usize = 5;
const ABOVE_TO_OPEN: usize = 3;
const FAULTS_TO_OPEN: i64 = 5;
const QUIET_TO_CLOSE: u32 = 5;
const DEVIATIONS: f64 = 3.0;
/// An insight that changes more often has told enough.
const MAX_EVENTS: usize = 100;

/// What faults are expected among some requests.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Band {
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// Whether requests and faults of one node are as they were.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expectation {
    clean: VecDeque<(i64, i64)>,
}

impl Expectation {
    fn share(&self) -> f64 {
        let (total, fault) = self
            .clean
            .iter()
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        if total == 0 {
            return LEAST_SHARE;
        }
        (fault as f64 / total as f64).clamp(LEAST_SHARE, 1.0)
    }

    pub(crate) fn band(&self, total: i64) -> Band {
        let (n, p) = (total as f64, self.share());
        let spread = DEVIATIONS * (n * p * (1.0 - p)).sqrt();
        Band {
            low: (n * p - spread).max(0.0),
            high: n * p + spread,
        }
    }

    /// Takes a minute in; says whether it was above its band. One that was teaches nothing.
    pub(crate) fn take(&mut self, tally: Tally) -> bool {
        if tally.total() == 0 {
            return false;
        }
        if tally.fault as f64 > self.band(tally.total()).high {
            return true;
        }
        self.clean.push_back((tally.total(), tally.fault));
        if self.clean.len() > CLEAN_MINUTES {
            self.clean.pop_front();
        }
        false
    }
}

#[derive(Clone, Debug, Default)]
struct History {
    expectation: Expectation,
    /// Of the last minutes, oldest first: whether above, and faults.
    recent: VecDeque<(bool, i64)>,
}

impl History {
    fn take(&mut self, tally: Tally) {
        let above = self.expectation.take(tally);
        self.recent.push_back((above, tally.fault));
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
    }

    fn above_now(&self) -> bool {
        self.recent.back().is_some_and(|(above, _)| *above)
    }

    fn anomalous(&self) -> bool {
        let above = self.recent.iter().filter(|(above, _)| *above);
        above.clone().count() >= ABOVE_TO_OPEN
            && above.map(|(_, faults)| faults).sum::<i64>() >= FAULTS_TO_OPEN
    }

    /// How many minutes ago the first of the recent ones above the band was.
    fn first_above(&self) -> u32 {
        let first = self.recent.iter().position(|(above, _)| *above);
        first.map_or(0, |at| (self.recent.len() - 1 - at) as u32)
    }
}

/// Something that failed, as far as it has been followed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Insight {
    /// The root cause when it opened: with the start, what it is known by.
    pub(crate) first_root: Node,
    pub(crate) root: Node,
    pub(crate) start_minute: u32,
    /// The last minute in which it failed.
    pub(crate) last_minute: u32,
    pub(crate) closed: bool,
    /// What failed with it, and how much.
    pub(crate) nodes: BTreeMap<Node, Tally>,
    /// Requests of outside callers to what depends on the root cause.
    pub(crate) clients: Tally,
    pub(crate) events: Vec<Event>,
    /// Of the quiet minutes since the last that failed: counted only if it fails again.
    quiet: Vec<(BTreeMap<Node, Tally>, Tally)>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    pub(crate) minute: u32,
    pub(crate) kind: EventKind,
    pub(crate) root: Node,
    pub(crate) nodes: BTreeMap<Node, Tally>,
    pub(crate) clients: Tally,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventKind {
    Opened,
    RootMoved,
    Spread,
    Closed,
}

impl Insight {
    pub(crate) fn root_tally(&self) -> Tally {
        self.nodes.get(&self.root).copied().unwrap_or_default()
    }

    fn count_quiet(&mut self) {
        for (nodes, clients) in std::mem::take(&mut self.quiet) {
            for (node, tally) in nodes {
                let sum = self.nodes.entry(node).or_default();
                *sum = sum.plus(tally);
            }
            self.clients = self.clients.plus(clients);
        }
    }

    fn note(&mut self, minute: u32, kind: EventKind) {
        if self.events.len() < MAX_EVENTS {
            self.events.push(Event {
                minute,
                kind,
                root: self.root.clone(),
                nodes: self.nodes.clone(),
                clients: self.clients,
            });
        }
    }
}

/// Follows one group's minutes in order.
#[derive(Default)]
pub(crate) struct Detector {
    histories: BTreeMap<Node, History>,
    /// The last minutes, oldest first.
    recent: VecDeque<Tallies>,
    insights: Vec<Insight>,
}

impl Detector {
    /// The next minute; those between may be left out when nothing happened in them.
    pub(crate) fn minute(&mut self, minute: u32, tallies: Tallies) {
        for key in tallies.keys() {
            if let Key::Node(node) = key {
                self.histories.entry(node.clone()).or_default();
            }
        }
        for (node, history) in &mut self.histories {
            history.take(tally_of(&tallies, node));
        }
        self.recent.push_back(tallies);
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        self.open_and_extend(minute);
        self.follow(minute);
    }

    /// As far as it has come, oldest first.
    pub(crate) fn insights(&self) -> &[Insight] {
        &self.insights
    }

    /// Whether any of them goes on.
    pub(crate) fn is_open(&self) -> bool {
        self.insights.iter().any(|one| !one.closed)
    }

    /// What the minutes so far say of a node.
    pub(crate) fn expectation(&self, node: &Node) -> Option<&Expectation> {
        self.histories.get(node).map(|history| &history.expectation)
    }

    /// Every node that did anything in the minutes so far.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.histories.keys()
    }

    fn calls(&self) -> BTreeMap<&Node, BTreeSet<&Node>> {
        let mut calls: BTreeMap<&Node, BTreeSet<&Node>> = BTreeMap::new();
        for key in self.recent.iter().flat_map(BTreeMap::keys) {
            if let Key::Edge { source, target } = key {
                calls.entry(source).or_default().insert(target);
            }
        }
        calls
    }

    fn open_and_extend(&mut self, minute: u32) {
        let failing: BTreeSet<Node> = self
            .histories
            .iter()
            .filter(|(_, history)| history.anomalous())
            .map(|(node, _)| node.clone())
            .collect();
        if failing.is_empty() {
            return;
        }
        let mut by_root: BTreeMap<Node, BTreeSet<Node>> = BTreeMap::new();
        let calls = self.calls();
        for node in &failing {
            let root = root_of(node, &failing, &calls).clone();
            by_root.entry(root).or_default().insert(node.clone());
        }
        for (root, members) in by_root {
            let known = self.insights.iter().position(|one| {
                !one.closed
                    && (one.root == root
                        || one.nodes.contains_key(&root)
                        || members.contains(&one.root))
            });
            match known {
                Some(at) => self.extend(at, minute, &root, members),
                None => self.open(minute, root, members),
            }
        }
    }

    fn open(&mut self, minute: u32, root: Node, members: BTreeSet<Node>) {
        let ago = self.histories.get(&root).map_or(0, History::first_above);
        // The minute itself is added by `follow`.
        let back = (ago as usize).min(self.recent.len() - 1);
        let nodes = members
            .into_iter()
            .map(|node| {
                let sum = self.sum_before(back, |tallies| tally_of(tallies, &node));
                (node, sum)
            })
            .collect();
        let upstream = upstream_of(&root, &self.calls());
        let clients = self.sum_before(back, |tallies| clients_of(tallies, &upstream));
        self.insights.push(Insight {
            first_root: root.clone(),
            root,
            start_minute: minute - ago,
            last_minute: minute,
            closed: false,
            nodes,
            clients,
            events: Vec::new(),
            quiet: Vec::new(),
        });
    }

    /// Over the `back` minutes before this one.
    fn sum_before(&self, back: usize, of: impl Fn(&Tallies) -> Tally) -> Tally {
        let minutes = self.recent.iter().rev().skip(1).take(back);
        minutes.map(of).fold(Tally::default(), Tally::plus)
    }

    fn extend(&mut self, at: usize, minute: u32, root: &Node, members: BTreeSet<Node>) {
        let back = self.recent.len() - 1;
        let fresh: Vec<(Node, Tally)> = members
            .into_iter()
            .filter(|node| !self.insights[at].nodes.contains_key(node))
            .map(|node| {
                let sum = self.sum_before(back, |tallies| tally_of(tallies, &node));
                (node, sum)
            })
            .collect();
        let moved = self.insights[at].root != *root
            && self.histories.get(root).is_some_and(History::anomalous);
        let insight = &mut self.insights[at];
        let spread = !fresh.is_empty();
        insight.nodes.extend(fresh);
        if moved {
            insight.root = root.clone();
            insight.note(minute, EventKind::RootMoved);
        } else if spread {
            insight.note(minute, EventKind::Spread);
        }
    }

    /// Counts this minute into what is open, and closes what has been quiet.
    fn follow(&mut self, minute: u32) {
        let calls = self.calls();
        let Some(tallies) = self.recent.back() else {
            return;
        };
        let upstreams: Vec<BTreeSet<Node>> = self
            .insights
            .iter()
            .map(|one| {
                if one.closed {
                    BTreeSet::new()
                } else {
                    upstream_of(&one.root, &calls)
                }
            })
            .collect();
        for (insight, upstream) in self.insights.iter_mut().zip(upstreams) {
            if insight.closed {
                continue;
            }
            if insight
                .nodes
                .keys()
                .any(|node| self.histories.get(node).is_some_and(History::above_now))
            {
                insight.last_minute = minute;
            }
            if minute - insight.last_minute >= QUIET_TO_CLOSE {
                insight.closed = true;
                insight.note(minute, EventKind::Closed);
                continue;
            }
            let nodes = insight.nodes.keys();
            let now = nodes
                .map(|node| (node.clone(), tally_of(tallies, node)))
                .collect();
            insight.quiet.push((now, clients_of(tallies, &upstream)));
            if insight.last_minute == minute {
                insight.count_quiet();
            }
            if insight.events.is_empty() {
                insight.note(minute, EventKind::Opened);
            }
        }
    }
}

fn tally_of(tallies: &Tallies, node: &Node) -> Tally {
    tallies
        .get(&Key::Node(node.clone()))
        .copied()
        .unwrap_or_default()
}

fn clients_of(tallies: &Tallies, upstream: &BTreeSet<Node>) -> Tally {
    let calls = tallies.iter().filter(|(key, _)| match key {
        Key::Edge { source, target } => source.kind == CLIENT_TYPE && upstream.contains(target),
        Key::Node(_) | Key::Party(_) | Key::Calls { .. } => false,
    });
    calls
        .map(|(_, tally)| *tally)
        .fold(Tally::default(), Tally::plus)
}

/// The farthest failing node that failing nodes lead to from `node`.
fn root_of<'n>(
    node: &'n Node,
    failing: &'n BTreeSet<Node>,
    calls: &BTreeMap<&'n Node, BTreeSet<&'n Node>>,
) -> &'n Node {
    let mut seen = BTreeSet::from([node]);
    let mut row = vec![node];
    let mut last = node;
    while let Some(first) = row.first() {
        last = first;
        let mut next: BTreeSet<&Node> = BTreeSet::new();
        for target in row.iter().filter_map(|one| calls.get(one)).flatten() {
            if failing.contains(*target) && seen.insert(target) {
                next.insert(target);
            }
        }
        row = next.into_iter().collect();
    }
    last
}

/// `root` and whatever calls it, directly or not.
fn upstream_of(root: &Node, calls: &BTreeMap<&Node, BTreeSet<&Node>>) -> BTreeSet<Node> {
    let mut found = BTreeSet::from([root.clone()]);
    loop {
        let more: Vec<Node> = calls
            .iter()
            .filter(|(source, targets)| {
                !found.contains(**source) && targets.iter().any(|target| found.contains(*target))
            })
            .map(|(source, _)| (*source).clone())
            .collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> Node {
        Node::new(name, if name == "client" { CLIENT_TYPE } else { "svc" })
    }

    fn tally(total: i64, fault: i64) -> Tally {
        Tally {
            ok: total - fault,
            error: 0,
            fault,
        }
    }

    /// client → web → cart → db, each with as many faults as given.
    fn minute(faults: [i64; 3]) -> Tallies {
        let mut tallies = Tallies::new();
        let names = ["client", "web", "cart", "db"].map(node);
        for (at, fault) in faults.into_iter().enumerate() {
            let (source, target) = (names[at].clone(), names[at + 1].clone());
            tallies.insert(Key::Node(target.clone()), tally(100, fault));
            tallies.insert(Key::Edge { source, target }, tally(100, fault));
        }
        tallies
    }

    fn run(minutes: impl IntoIterator<Item = [i64; 3]>) -> Detector {
        let mut detector = Detector::default();
        for (at, faults) in minutes.into_iter().enumerate() {
            detector.minute(1000 + at as u32, minute(faults));
        }
        detector
    }

    #[test]
    fn faults_within_what_is_usual_open_nothing() {
        let detector = run((0..120).map(|at| [at % 3, 1, 2]));
        assert!(detector.insights().is_empty());
    }

    #[test]
    fn the_farthest_downstream_that_fails_is_the_root_cause_of_all_above_it() {
        let detector = run((0..60).map(|_| [0; 3]).chain((0..4).map(|_| [30, 30, 40])));
        let [insight] = detector.insights() else {
            panic!("one insight, not {}", detector.insights().len());
        };
        assert_eq!(insight.root, node("db"));
        assert_eq!(insight.nodes.len(), 3);
        assert_eq!((insight.start_minute, insight.closed), (1060, false));
        assert_eq!(insight.root_tally(), tally(400, 160));
        assert_eq!(insight.clients, tally(400, 120));
        assert_eq!(insight.events.len(), 1);
    }

    #[test]
    fn an_insight_closes_after_five_quiet_minutes_and_counts_only_its_own() {
        let failing = (0..10).map(|_| [0, 0, 50]);
        let detector = run((0..30)
            .map(|_| [0; 3])
            .chain(failing)
            .chain((0..9).map(|_| [0; 3])));
        let [insight] = detector.insights() else {
            panic!("one insight");
        };
        assert!(insight.closed && !detector.is_open());
        assert_eq!((insight.start_minute, insight.last_minute), (1030, 1039));
        assert_eq!(insight.root_tally().fault, 500);
        let kinds: Vec<EventKind> = insight.events.iter().map(|event| event.kind).collect();
        assert_eq!(kinds, [EventKind::Opened, EventKind::Closed]);
    }

    #[test]
    fn a_cause_that_is_found_later_moves_the_insight_rather_than_opening_another() {
        let first = (0..3).map(|_| [20, 0, 0]);
        let later = (0..4).map(|_| [20, 20, 20]);
        let detector = run((0..30).map(|_| [0; 3]).chain(first).chain(later));
        let [insight] = detector.insights() else {
            panic!("one insight");
        };
        assert_eq!(
            (&insight.first_root, &insight.root),
            (&node("web"), &node("db"))
        );
        assert!(
            insight
                .events
                .iter()
                .any(|event| event.kind == EventKind::RootMoved)
        );
    }

    #[test]
    fn a_lasting_high_share_is_what_is_expected_next_time() {
        let mut expectation = Expectation::default();
        for _ in 0..60 {
            expectation.take(tally(1000, 5));
        }
        let band = expectation.band(1000);
        assert!(
            band.low < 5.0 && 5.0 < band.high && band.high < 12.0,
            "{band:?}"
        );
        assert!(expectation.take(tally(1000, 30)));
        assert_eq!(expectation.band(1000), band);
    }
}
