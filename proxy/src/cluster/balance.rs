// SPDX-License-Identifier: Apache-2.0
//! Which endpoint a try goes to: round robin by weight over the healthy endpoints of the best priority, all of them
//! when fewer than half are healthy (panic). Pure over a set, a turn and the marks on the endpoints.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use pillion_xds::endpoint::Health;

use super::Endpoint;
use super::MARKS;
use super::Member;

/// Envoy's panic threshold: below this share of healthy endpoints, health is not believed.
const PANIC_PERCENT: usize = 50;
/// Slots of the weighted order; weights are scaled down to fit.
const SLOTS: u64 = 4096;

/// The endpoints of a cluster, in the order in which turns go round.
#[derive(Debug)]
pub struct Set {
    members: Vec<Member>,
    levels: Vec<Level>,
    /// The count of marks at which every member of the first level was found to take traffic.
    whole: AtomicU64,
}

/// The endpoints of one priority.
#[derive(Debug)]
struct Level {
    /// Positions in `members`, each as often as its weight says, spread evenly.
    order: Vec<u32>,
    number: usize,
}

/// What a pick came to.
#[derive(Debug)]
pub struct Picked {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// Whether health was set aside.
    pub panic: bool,
}

impl Set {
    /// The set of these members.
    pub fn new(members: Vec<Member>) -> Set {
        let priorities: BTreeSet<u32> = members.iter().map(|member| member.priority).collect();
        let levels = priorities
            .into_iter()
            .map(|priority| Level::new(&members, priority))
            .collect();
        Set {
            members,
            levels,
            whole: AtomicU64::new(0),
        }
    }

    /// All of them.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Members, healthy ones, ejected ones.
    pub fn census(&self) -> (u64, u64, u64) {
        let count = |holds: fn(&Member) -> bool| {
            self.members.iter().filter(|member| holds(member)).count() as u64
        };
        let ejected = |member: &Member| member.endpoint.is_ejected();
        (
            self.members.len() as u64,
            count(is_available),
            count(ejected),
        )
    }

    /// The endpoint for this turn. `avoid` is passed over where another is there, as a retry should go elsewhere.
    pub fn pick(&self, turn: usize, avoid: Option<u64>) -> Option<Picked> {
        if let Some(endpoint) = self.pick_whole(turn, avoid) {
            return Some(Picked {
                endpoint,
                panic: false,
            });
        }
        let calm = self.levels.iter().find(|level| {
            let healthy = level.healthy(&self.members);
            healthy > 0 && healthy * 100 >= level.number * PANIC_PERCENT
        });
        let panic = calm.is_none();
        let level = calm.or(self.levels.first())?;
        let usable = |position: u32| {
            let member = &self.members[position as usize];
            (panic || is_available(member)).then_some(member)
        };
        let from = turn % level.order.len().max(1);
        let round = || {
            level.order[from..]
                .iter()
                .chain(&level.order[..from])
                .copied()
                .filter_map(usable)
        };
        let elsewhere = round().find(|member| Some(member.endpoint.id) != avoid);
        let member = elsewhere.or_else(|| round().next())?;
        Some(Picked {
            endpoint: Arc::clone(&member.endpoint),
            panic,
        })
    }
}

impl Set {
    /// The common case without a look at every member: nobody is out.
    fn pick_whole(&self, turn: usize, avoid: Option<u64>) -> Option<Arc<Endpoint>> {
        let level = self.levels.first()?;
        let marks = MARKS.load(Ordering::Acquire);
        if self.whole.load(Ordering::Relaxed) != marks {
            if !level
                .order
                .iter()
                .all(|position| is_available(&self.members[*position as usize]))
            {
                return None;
            }
            self.whole.store(marks, Ordering::Relaxed);
        }
        let member = &self.members[level.order[turn % level.order.len()] as usize];
        (Some(member.endpoint.id) != avoid).then(|| Arc::clone(&member.endpoint))
    }
}

fn is_available(member: &Member) -> bool {
    member.health == Health::Healthy && !member.endpoint.is_out()
}

impl Level {
    fn new(members: &[Member], priority: u32) -> Level {
        let here: Vec<(u32, u64)> = (0_u32..)
            .zip(members)
            .filter(|(_, member)| member.priority == priority)
            .map(|(position, member)| (position, u64::from(member.weight.max(1))))
            .collect();
        Level {
            number: here.len(),
            order: spread(&here),
        }
    }

    fn healthy(&self, members: &[Member]) -> usize {
        // With equal weights the order holds each endpoint once; otherwise the share by weight stands for the number.
        let healthy = self
            .order
            .iter()
            .filter(|position| is_available(&members[**position as usize]))
            .count();
        if self.order.len() == self.number {
            return healthy;
        }
        (healthy * self.number).div_ceil(self.order.len().max(1))
    }
}

/// Each position as often as its share, earliest deadline first, so that equal shares alternate.
fn spread(weights: &[(u32, u64)]) -> Vec<u32> {
    let divisor = weights
        .iter()
        .map(|(_, weight)| *weight)
        .fold(0, gcd)
        .max(1);
    let total: u64 = weights.iter().map(|(_, weight)| weight / divisor).sum();
    let scale = total.div_ceil(SLOTS).max(1);
    let shares: Vec<(u32, u64)> = weights
        .iter()
        .map(|(position, weight)| (*position, (weight / divisor / scale).max(1)))
        .collect();
    if shares.iter().all(|(_, share)| *share == 1) {
        return shares.into_iter().map(|(position, _)| position).collect();
    }
    // The k-th visit of a share is due at (k + 1/2) / share of the round; integers keep the order exact.
    let mut visits: Vec<(u64, u32)> = Vec::new();
    for (position, share) in shares {
        visits.extend((0..share).map(|visit| ((2 * visit + 1) * (1 << 32) / share, position)));
    }
    visits.sort_unstable();
    visits.into_iter().map(|(_, position)| position).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn member(port: u16, weight: u32, priority: u32) -> Member {
        let addr = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        Member {
            endpoint: Arc::new(Endpoint::new(addr, "h", "")),
            priority,
            weight,
            health: Health::Healthy,
        }
    }

    fn ports(set: &Set, turns: usize) -> Vec<u16> {
        (0..turns)
            .filter_map(|turn| set.pick(turn, None))
            .map(|picked| picked.endpoint.addr.port())
            .collect()
    }

    #[test]
    fn turns_go_round() {
        let set = Set::new(vec![member(1, 1, 0), member(2, 1, 0), member(3, 1, 0)]);
        assert_eq!(ports(&set, 6), [1, 2, 3, 1, 2, 3]);
    }

    #[test]
    fn weights_share_turns_evenly_spread() {
        let set = Set::new(vec![member(1, 2, 0), member(2, 1, 0)]);
        let mut counts = BTreeMap::new();
        ports(&set, 300)
            .into_iter()
            .for_each(|port| *counts.entry(port).or_insert(0) += 1);
        assert_eq!(counts, BTreeMap::from([(1, 200), (2, 100)]));
        assert_eq!(ports(&set, 3), [1, 2, 1]);
    }

    #[test]
    fn huge_weights_do_not_make_huge_tables() {
        let set = Set::new(vec![member(1, u32::MAX, 0), member(2, 1, 0)]);
        assert!(set.levels[0].order.len() as u64 <= SLOTS + 2);
    }

    #[test]
    fn an_ejected_endpoint_gets_no_turn() {
        let set = Set::new(vec![member(1, 1, 0), member(2, 1, 0), member(3, 1, 0)]);
        set.members()[1].endpoint.set_ejected(true);
        assert!(!ports(&set, 9).contains(&2));
    }

    #[test]
    fn below_half_healthy_all_take_traffic() {
        let set = Set::new(vec![member(1, 1, 0), member(2, 1, 0), member(3, 1, 0)]);
        set.members()[0].endpoint.set_ejected(true);
        set.members()[1].endpoint.set_ejected(true);
        assert_eq!(ports(&set, 3), [1, 2, 3]);
        assert!(set.pick(0, None).unwrap().panic);
    }

    #[test]
    fn a_retry_goes_elsewhere_where_there_is_one() {
        let two = Set::new(vec![member(1, 1, 0), member(2, 1, 0)]);
        let first = two.pick(0, None).unwrap().endpoint;
        assert_ne!(two.pick(0, Some(first.id)).unwrap().endpoint.id, first.id);
        let one = Set::new(vec![member(1, 1, 0)]);
        let only = one.pick(0, None).unwrap().endpoint;
        assert_eq!(one.pick(0, Some(only.id)).unwrap().endpoint.id, only.id);
    }

    #[test]
    fn the_next_priority_serves_when_the_first_is_out() {
        let set = Set::new(vec![member(1, 1, 0), member(2, 1, 1)]);
        assert_eq!(ports(&set, 2), [1, 1]);
        set.members()[0].endpoint.set_unhealthy(true);
        assert_eq!(ports(&set, 2), [2, 2]);
    }

    #[test]
    fn an_empty_set_has_nobody() {
        assert!(Set::new(Vec::new()).pick(0, None).is_none());
    }
}
