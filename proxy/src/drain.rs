// SPDX-License-Identifier: Apache-2.0
//! How far the drain of each side has come: announce, wait, close, cut. `app` and the admin pages advance it through
//! [`Drains`]; listeners and connections follow it through [`Stages`]. Knows neither sockets nor requests.

use tokio::sync::watch;

/// Which listeners: seen from the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Calls that come to it, a gateway's included.
    Inbound,
    /// Calls that it makes.
    Outbound,
}

/// Both.
pub const BOTH: &[Side] = &[Side::Inbound, Side::Outbound];

/// How far the drain of a side has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Normal service.
    Serving,
    /// Still accepting, and asking callers to go elsewhere.
    Announcing,
    /// No longer accepting; what is in flight finishes.
    Closing,
    /// What is left is cut off.
    Cut,
}

/// The stages as they are followed.
#[derive(Clone, Debug)]
pub struct Stages {
    inbound: watch::Receiver<Stage>,
    outbound: watch::Receiver<Stage>,
}

impl Stages {
    fn of(&self, side: Side) -> &watch::Receiver<Stage> {
        match side {
            Side::Inbound => &self.inbound,
            Side::Outbound => &self.outbound,
        }
    }

    /// How far this side has come.
    pub fn stage(&self, side: Side) -> Stage {
        *self.of(side).borrow()
    }

    /// Waits until this side has come so far.
    pub async fn reaches(&self, side: Side, stage: Stage) {
        let mut stages = self.of(side).clone();
        // A dropped sender means that the process goes.
        let reached = stages.wait_for(|now| *now >= stage).await;
        tracing::trace!(?side, ?stage, told = reached.is_ok(), "drain");
    }
}

/// The stages as they are set.
#[derive(Debug)]
pub struct Drains {
    inbound: watch::Sender<Stage>,
    outbound: watch::Sender<Stage>,
}

impl Default for Drains {
    fn default() -> Drains {
        Drains {
            inbound: watch::channel(Stage::Serving).0,
            outbound: watch::channel(Stage::Serving).0,
        }
    }
}

impl Drains {
    fn of(&self, side: Side) -> &watch::Sender<Stage> {
        match side {
            Side::Inbound => &self.inbound,
            Side::Outbound => &self.outbound,
        }
    }

    /// For those who follow.
    pub fn stages(&self) -> Stages {
        Stages {
            inbound: self.inbound.subscribe(),
            outbound: self.outbound.subscribe(),
        }
    }

    /// How far this side has come.
    pub fn stage(&self, side: Side) -> Stage {
        *self.of(side).borrow()
    }

    /// Brings these sides as far as `to`; a drain never goes back by this.
    pub fn advance(&self, sides: &[Side], to: Stage) {
        for side in sides {
            self.of(*side).send_if_modified(|stage| {
                let later = *stage < to;
                *stage = to.max(*stage);
                later
            });
        }
    }

    /// Takes an announcement back, where nothing has been closed yet.
    pub fn relent(&self, side: Side) {
        self.of(side).send_if_modified(|stage| {
            let announced = *stage == Stage::Announcing;
            if announced {
                *stage = Stage::Serving;
            }
            announced
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_goes_forward_alone_and_only_an_announcement_is_taken_back() {
        let drains = Drains::default();
        let stages = drains.stages();
        drains.advance(&[Side::Inbound], Stage::Announcing);
        assert_eq!(stages.stage(Side::Inbound), Stage::Announcing);
        assert_eq!(stages.stage(Side::Outbound), Stage::Serving);
        drains.relent(Side::Inbound);
        assert_eq!(stages.stage(Side::Inbound), Stage::Serving);
        drains.advance(BOTH, Stage::Closing);
        drains.advance(BOTH, Stage::Announcing);
        drains.relent(Side::Outbound);
        assert_eq!(stages.stage(Side::Outbound), Stage::Closing);
    }
}
