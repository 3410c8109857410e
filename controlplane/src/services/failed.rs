//! What failed here and waits to be cleared, for those who decide whether the group moves (`controlplane_core::failing`).

use std::fs;

use controlplane_core::failing::Here;
use controlplane_core::group::{Event, GroupState, Origin, Reason};
use mirror_core::types::Instant;

use super::orders::remove;
use super::{Seen, Service, Services};
use crate::resources::ResourceError;

/// How the file `failed` begins when a resource did not start or did not stay.
pub(super) const FAILED: &str = "LS6046";
/// The same when it was started after takeovers too often.
pub(super) const PING_PONG: &str = "LS6047";
/// The same when a monitor failed.
pub(super) const CONDEMNED: &str = "LS6171";
/// When a resource did not start because of what is on a volume.
pub(super) const ALIKE: &str = "LS6166";

/// In the file: the volumes were not served here since.
const AWAY: &str = "Since then its volumes left this node.";

impl Services {
    /// How a group stands here, with all that waits to be cleared; `None` if it has no resources.
    pub fn here(&self, now: Instant, group: usize) -> Option<Here> {
        Some(self.groups.get(&group)?.here(now))
    }

    /// Whether one more move of a group by itself is within its budget.
    pub fn moves_left(&self, now: Instant, group: usize) -> bool {
        let service = self.groups.get(&group);
        service.is_some_and(|service| service.group.moves_left(now))
    }

    /// A group moves to the other node because it failed here, by the wish with this number.
    pub fn moves_away(&mut self, now: Instant, group: usize, number: u64) {
        if let Some(service) = self.groups.get_mut(&group) {
            service.gave = Some(number);
            service.handle(now, Event::MovesAway);
        }
    }

    /// The move of this wish came to nothing.
    pub fn came_to_nothing(&mut self, group: usize, number: u64) {
        if let Some(service) = self.groups.get_mut(&group) {
            service.came_back = service.away && service.gave == Some(number);
        }
    }

    /// The other node serves the group.
    pub fn served_there(&mut self, group: usize) {
        if let Some(service) = self.groups.get_mut(&group) {
            (service.gave, service.came_back) = (None, false);
            if !service.served {
                service.origin = Origin::Start;
            }
        }
    }

    /// Whether the group failed here, and its volumes have not been served here since they left.
    pub fn is_away(&self, group: usize) -> bool {
        let service = self.groups.get(&group);
        service.is_some_and(|service| service.away)
    }

    /// Whether the group waits here because a monitor failed: nobody knows that it cannot run here.
    pub fn is_condemned(&self, group: usize) -> bool {
        let service = self.groups.get(&group);
        service.is_some_and(Service::is_condemned)
    }

    /// It did not get to the other node, and is better here than nowhere. That is paid like a move: it does not go on for ever.
    /// Returns whether it is begun.
    pub fn runs_on(&mut self, now: Instant, group: usize) -> bool {
        let Some(service) = self.groups.get_mut(&group) else {
            return false;
        };
        let again = service.try_again(now);
        if again {
            service.handle(now, Event::MovesAway);
        }
        again
    }

    /// Whether the wish with this number, that failures are forgotten, is still to be carried out here.
    pub fn clears(&self, group: usize, number: u64) -> bool {
        let service = self.groups.get(&group);
        service.is_some_and(|service| service.cleared != Some(number))
    }
}

impl Service {
    fn here(&self, now: Instant) -> Here {
        let state = self.group.state(now);
        let gone = matches!(
            state,
            GroupState::StartFailed | GroupState::Failed | GroupState::Offline
        );
        match self.failure() {
            _ if state == GroupState::Online => Here::Runs,
            Some(here) if gone => here,
            Some(_) => Here::Waits,
            None if self.failed || self.inherited || self.group.barred().is_some() => Here::Waits,
            None => Here::Else,
        }
    }

    /// That it is not started here any more, in this run or since an earlier one, and no stop failed.
    fn failure(&self) -> Option<Here> {
        if self.group.is_stop_failed() {
            return None;
        }
        match self.group.barred() {
            Some(Reason::Resource(resource)) if self.alike.contains(&resource) => Some(Here::Alike),
            Some(Reason::Resource(_) | Reason::Monitor(_) | Reason::PingPong) => Some(Here::Failed),
            None if self.inherited => {
                let why = fs::read_to_string(self.file("failed")).ok()?;
                let begins = [
                    (FAILED, Here::Failed),
                    (PING_PONG, Here::Failed),
                    (CONDEMNED, Here::Failed),
                    (ALIKE, Here::Alike),
                ];
                let found = begins.iter().find(|(code, _)| why.starts_with(code));
                found.map(|(_, here)| *here)
            }
            None => None,
        }
    }

    fn is_condemned(&self) -> bool {
        let before = || fs::read_to_string(self.file("failed")).unwrap_or_default();
        match self.group.barred() {
            Some(Reason::Monitor(_)) => true,
            Some(Reason::Resource(_) | Reason::PingPong) => false,
            None => self.inherited && before().starts_with(CONDEMNED),
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

    /// A group that failed here left this node, or did not: in the file as well, for a run that begins when its volumes are
    /// served again.
    pub(super) fn set_away(&mut self, away: bool) {
        if self.away == away || (away && self.failure().is_none()) {
            return;
        }
        self.away = away;
        let path = self.file("failed");
        let write = || {
            let why = fs::read_to_string(&path)?;
            let lines = why.lines().filter(|line| *line != AWAY);
            let lines = lines.chain(away.then_some(AWAY));
            let text: String = lines.map(|line| format!("{line}\n")).collect();
            fs::write(&path, text)
        };
        if let Err(error) = write() {
            let path = path.display().to_string();
            tracing::error!(code = "LS6062", path, %error, "cannot write");
        }
    }

    /// One of its volumes is known not to be served here.
    pub(super) fn look_whether_away(&mut self) {
        if self.volumes.values().any(|seen| *seen == Seen::Fenced) {
            self.set_away(true);
        }
    }

    /// Of an earlier run.
    pub(super) fn was_away(&self) -> bool {
        let why = fs::read_to_string(self.file("failed")).unwrap_or_default();
        self.inherited && why.lines().any(|line| line == AWAY)
    }

    /// What failed here left, and its volumes are served here again, by whatever way: a takeover, alone, by an operator. It is
    /// tried again, since nobody else runs it, or somebody wants it here. One that only came back from a move by itself, to a
    /// node that lives and did not begin, waits as it did.
    pub(super) fn look_at_return(&mut self, now: Instant) {
        if !self.away {
            return;
        }
        let came_back = std::mem::take(&mut self.came_back) && self.other_dead.is_none();
        self.gave = None;
        self.set_away(false);
        if !came_back {
            self.try_again(now);
        }
    }

    /// What failed here is tried once more. The budget of failovers bounds that after takeovers.
    /// Returns whether it is.
    fn try_again(&mut self, now: Instant) -> bool {
        let again = self.failure().is_some() && remove(&self.file("failed")).is_ok();
        if again {
            (self.failed, self.inherited, self.away) = (false, false, false);
            self.handle(now, Event::TriedAgain);
            self.look_at_orders(now);
        }
        again
    }
}
