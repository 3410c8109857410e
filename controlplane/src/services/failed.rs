//! What failed here and waits to be cleared, for those who decide whether the group moves (`controlplane_core::failing`).

use std::fs;

use controlplane_core::failing::Here;
use controlplane_core::group::{Event, GroupState, Reason};
use mirror_core::types::Instant;

use super::orders::remove;
use super::{Service, Services};
use crate::resources::ResourceError;

/// How the file `failed` begins when a resource did not start or did not stay.
pub(super) const FAILED: &str = "LS6046";
/// The same, because of what is on a volume.
pub(super) const ALIKE: &str = "LS6166";

impl Services {
    /// How a group stands here, with all that waits to be cleared; `None` if it has no resources.
    pub fn here(&self, now: Instant, group: usize) -> Option<Here> {
        Some(self.groups.get(&group)?.here(now))
    }

    /// Whether one more move of a group by itself is within its budget.
    pub fn moves_left(&self, now: Instant, group: usize) -> bool {
        let service = self.groups.get(&group);
        service.is_some_and(|service| service.group.failovers_left(now))
    }

    /// A group moves to the other node because it failed here.
    pub fn moves_away(&mut self, now: Instant, group: usize) {
        if let Some(service) = self.groups.get_mut(&group) {
            service.handle(now, Event::MovesAway);
        }
    }
}

impl Service {
    fn here(&self, now: Instant) -> Here {
        let state = self.group.state(now);
        let gone = matches!(state, GroupState::StartFailed | GroupState::Offline);
        match self.failure() {
            _ if state == GroupState::Online => Here::Runs,
            Some(here) if gone => here,
            Some(_) => Here::Waits,
            None if self.failed || self.inherited || self.group.barred().is_some() => Here::Waits,
            None => Here::Else,
        }
    }

    /// That a resource failed, in this run or in an earlier one.
    fn failure(&self) -> Option<Here> {
        match self.group.barred() {
            Some(Reason::Resource(resource)) if self.alike.contains(&resource) => Some(Here::Alike),
            Some(Reason::Resource(_)) => Some(Here::Failed),
            Some(Reason::PingPong) => None,
            None if self.inherited => {
                let why = fs::read_to_string(self.file("failed")).ok()?;
                let begins = [(FAILED, Here::Failed), (ALIKE, Here::Alike)];
                let found = begins.iter().find(|(code, _)| why.starts_with(code));
                found.map(|(_, here)| *here)
            }
            None => None,
        }
    }

    /// How a resource's start ended.
    pub(super) fn remember_why(&mut self, resource: usize, error: Option<&ResourceError>) {
        if error.is_some_and(ResourceError::is_of_the_volume) {
            self.alike.insert(resource);
        } else {
            self.alike.remove(&resource);
        }
    }

    /// The volumes were taken over: nobody else can run the group, so what failed here is tried once more. The budget of
    /// failovers bounds that.
    pub(super) fn try_again(&mut self, now: Instant) {
        if self.failure().is_some() && remove(&self.file("failed")).is_ok() {
            (self.failed, self.inherited) = (false, false);
            self.handle(now, Event::TriedAgain);
            self.look_at_orders(now);
        }
    }
}
