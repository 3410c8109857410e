//! The paths of the mirror link: which one is dialled, used, kept ready, given up.
//!
//! A path is a pair of addresses, one of each node. One path carries the session; on every other one a
//! connection stands that nobody has said a word on, so that after a loss nothing has to be dialled first.
//! The shell has the sockets and does what [`Paths::todo`] says; the simulator runs the same rules.

use core::time::Duration;

use crate::mutant::{self, Mutant};
use crate::types::{Instant, SessionId};

/// Paths of a link at most.
pub const PATHS_MAX: usize = 2;
/// Before the first try after a loss.
pub const DIAL_PAUSE_MIN: Duration = Duration::from_millis(50);
/// Between two tries at most, with what chance adds, where nobody answers. A daemon that starts waits so long for the
/// other one to dial, and the service of both with it; a try is one packet.
pub const DIAL_PAUSE_MAX: Duration = Duration::from_millis(250);
/// The same after a connection that was ended before both had agreed: a peer that refuses will refuse again.
pub const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(1);
/// A lower path that is being dialled is waited for so long, so that paths are used in their order.
pub const ORDER_GRACE: Duration = Duration::from_millis(100);
/// A connection that stood for so long was no accident: the path works, and the next try comes soon.
const STOOD_WELL: Duration = Duration::from_secs(2);
/// A path that has been down for so long is told to the operator, and so is one that is back.
pub const TOLD_AFTER: Duration = Duration::from_secs(2);

/// What a path does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// No connection; the dialling node tries again then.
    Down { retry_at: Instant },
    /// Being dialled.
    Dialling { since: Instant },
    /// A connection stands, and nothing was said on it yet.
    Ready { id: SessionId, since: Instant },
    /// The core works with it.
    Used {
        id: SessionId,
        heard: Instant,
        /// The peer's state came: both have proved the key.
        agreed: bool,
    },
}

/// What the shell has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Todo {
    /// Begin to connect; the path counts as being dialled from now on.
    Dial {
        /// Which path, from 0.
        path: usize,
    },
    /// Tell the core of this connection.
    Use {
        /// Which path.
        path: usize,
        /// The connection on it.
        session: SessionId,
    },
    /// End this connection at once: the peer does not answer on it, and another one stands.
    GiveUp {
        /// The connection.
        session: SessionId,
    },
}

/// How a path stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It carries the session.
    InUse,
    /// It would carry it.
    Ready,
    /// The peer does not answer on it.
    Down,
}

/// Something to tell the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The session goes on over the other path; this one does not work.
    Lost {
        /// Which path, from 0.
        path: usize,
    },
    /// It works again.
    Back {
        /// Which path, from 0.
        path: usize,
    },
}

#[derive(Clone, Copy, Debug)]
struct Path {
    place: Place,
    pause: Duration,
    /// Since when no connection stood for long; `None` if one does.
    down_since: Option<Instant>,
    told_lost: bool,
}

/// All paths of one node's link.
#[derive(Debug)]
pub struct Paths {
    paths: [Path; PATHS_MAX],
    count: usize,
    dials: bool,
    /// A connection in its handshake that is silent for so long is given up, if another one stands.
    patience: Duration,
}

impl Paths {
    /// `count` is 1..=[`PATHS_MAX`]; `dials`: this node begins connections; `patience`: silence in a
    /// handshake, twice the keepalive interval is a good choice.
    pub fn new(count: usize, dials: bool, patience: Duration, now: Instant) -> Self {
        assert!((1..=PATHS_MAX).contains(&count), "{count} paths");
        let path = Path {
            place: Place::Down { retry_at: now },
            pause: DIAL_PAUSE_MIN,
            down_since: Some(now),
            told_lost: false,
        };
        let mut paths = [path; PATHS_MAX];
        if mutant::is(Mutant::FirstPathOnly) && dials {
            paths[1].place = Place::Dialling { since: now };
        }
        Self {
            paths,
            count,
            dials,
            patience,
        }
    }

    fn all(&self) -> &[Path] {
        &self.paths[..self.count]
    }

    // --- what the shell has to do -------------------------------------------------------------

    /// The next thing to do; to be asked again until there is none.
    pub fn todo(&mut self, now: Instant) -> Option<Todo> {
        if !self.dials {
            return None;
        }
        if let Some((path, session)) = self.hopeless(now) {
            self.down(path, 0, REFUSED_PAUSE_MAX, now);
            return Some(Todo::GiveUp { session });
        }
        if let Some((path, session)) = self.next_to_use(now) {
            self.paths[path].place = Place::Used {
                id: session,
                heard: now,
                agreed: false,
            };
            return Some(Todo::Use { path, session });
        }
        let due = |path: &Path| matches!(path.place, Place::Down { retry_at } if retry_at <= now);
        let path = self.all().iter().position(due)?;
        self.paths[path].place = Place::Dialling { since: now };
        Some(Todo::Dial { path })
    }

    /// When [`Self::todo`] or [`Self::change`] has something at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        let ready = self.all().iter().any(Path::is_ready);
        let used = self.all().iter().any(Path::is_used);
        let agreed = self.all().iter().any(Path::is_agreed);
        let of = |path: &Path| {
            let told = match (path.place, path.down_since) {
                (Place::Ready { since, .. }, Some(_)) => Some(since + STOOD_WELL),
                (_, Some(since)) if agreed && !path.told_lost => Some(since + TOLD_AFTER),
                (_, Some(_) | None) => None,
            };
            let step = match path.place {
                _ if !self.dials => None,
                Place::Down { retry_at } => Some(retry_at),
                Place::Dialling { since } => (ready && !used).then(|| since + ORDER_GRACE),
                Place::Used {
                    heard,
                    agreed: false,
                    ..
                } => ready.then(|| heard + self.patience),
                Place::Ready { .. } | Place::Used { .. } => None,
            };
            told.into_iter().chain(step).min()
        };
        self.all().iter().filter_map(of).min()
    }

    fn hopeless(&self, now: Instant) -> Option<(usize, SessionId)> {
        if mutant::is(Mutant::KeepsDeadCandidate) || !self.all().iter().any(Path::is_ready) {
            return None;
        }
        let mut paths = self.all().iter().enumerate();
        paths.find_map(|(number, path)| match path.place {
            Place::Used {
                id,
                heard,
                agreed: false,
            } if now.since(heard) >= self.patience => Some((number, id)),
            Place::Down { .. }
            | Place::Dialling { .. }
            | Place::Ready { .. }
            | Place::Used { .. } => None,
        })
    }

    /// Without a session the first path that stands; a lower one that has only just been dialled goes before.
    fn next_to_use(&self, now: Instant) -> Option<(usize, SessionId)> {
        for (path, each) in self.all().iter().enumerate() {
            match each.place {
                Place::Used { .. } => return None,
                Place::Dialling { since } if now.since(since) < ORDER_GRACE => return None,
                Place::Ready { id, .. } => {
                    let used = self.all().iter().any(Path::is_used);
                    return (!used).then_some((path, id));
                }
                Place::Down { .. } | Place::Dialling { .. } => {}
            }
        }
        None
    }

    // --- what has happened --------------------------------------------------------------------

    /// A connection stands on a path, and nothing was said on it. Gives back what stood there before and is of
    /// no use any more; `None` also if the path is in use: then this one is not counted.
    pub fn stands(&mut self, path: usize, session: SessionId, now: Instant) -> Option<SessionId> {
        let before = match self.paths[path].place {
            Place::Used { .. } => return None,
            Place::Ready { id, .. } => Some(id),
            Place::Down { .. } | Place::Dialling { .. } => None,
        };
        self.paths[path].place = Place::Ready {
            id: session,
            since: now,
        };
        before
    }

    /// Whether this connection is one that stands ready.
    pub fn is_ready(&self, session: SessionId) -> bool {
        self.all()
            .iter()
            .any(|path| matches!(path.place, Place::Ready { id, .. } if id == session))
    }

    /// A path could not be dialled. `chance`: 0..=255, so that two nodes do not stay in step.
    pub fn failed(&mut self, path: usize, chance: u8, now: Instant) {
        if matches!(self.paths[path].place, Place::Dialling { .. }) {
            self.down(path, chance, DIAL_PAUSE_MAX, now);
        }
    }

    /// A connection is over.
    pub fn ended(&mut self, session: SessionId, chance: u8, now: Instant) {
        let of = |path: &Path| path.session() == Some(session);
        let Some(path) = self.all().iter().position(of) else {
            return;
        };
        let well = match self.paths[path].place {
            Place::Ready { since, .. } => now.since(since) >= STOOD_WELL,
            Place::Used { agreed, .. } => agreed,
            Place::Down { .. } | Place::Dialling { .. } => false,
        };
        if well {
            self.paths[path].pause = DIAL_PAUSE_MIN;
        }
        self.down(path, chance, REFUSED_PAUSE_MAX, now);
    }

    fn down(&mut self, number: usize, chance: u8, most: Duration, now: Instant) {
        let path = &mut self.paths[number];
        let pause = path.pause + path.pause * u32::from(chance) / 1024;
        path.place = Place::Down {
            retry_at: now + pause.min(most),
        };
        path.pause = (path.pause * 2).min(most);
        path.down_since = path.down_since.or(Some(now));
    }

    /// Something was heard on a connection.
    pub fn heard(&mut self, session: SessionId, now: Instant) {
        for path in &mut self.paths[..self.count] {
            if let Place::Used { id, heard, .. } = &mut path.place
                && *id == session
            {
                *heard = now;
            }
        }
    }

    /// The peer's state came on a connection of this path: it has proved the key. Gives back what stood
    /// ready there and is of no use any more.
    pub fn agreed(&mut self, path: usize, session: SessionId, now: Instant) -> Option<SessionId> {
        let path = &mut self.paths[path];
        let before = path.is_ready().then(|| path.session()).flatten();
        path.place = Place::Used {
            id: session,
            heard: now,
            agreed: true,
        };
        path.pause = DIAL_PAUSE_MIN;
        path.down_since = None;
        before.filter(|before| *before != session)
    }

    // --- what there is to see -----------------------------------------------------------------

    /// How a path stands.
    pub fn standing(&self, path: usize) -> Standing {
        match self.paths[path].place {
            Place::Used { agreed: true, .. } => Standing::InUse,
            Place::Ready { .. } | Place::Used { .. } => Standing::Ready,
            Place::Down { .. } | Place::Dialling { .. } => Standing::Down,
        }
    }

    /// Whether the operator was told that a path is lost.
    pub fn is_told_lost(&self, path: usize) -> bool {
        self.paths[path].told_lost
    }

    /// What the operator has not been told yet. A path alone is not told: its loss is the link's.
    pub fn change(&mut self, now: Instant) -> Option<Change> {
        let agreed = self.all().iter().any(Path::is_agreed);
        for (number, path) in self.paths[..self.count].iter_mut().enumerate() {
            if matches!(path.place, Place::Ready { since, .. } if now.since(since) >= STOOD_WELL) {
                path.down_since = None;
            }
            match path.down_since {
                None if path.told_lost => {
                    path.told_lost = false;
                    return Some(Change::Back { path: number });
                }
                Some(since)
                    if agreed
                        && !path.told_lost
                        && !path.is_ready()
                        && now.since(since) >= TOLD_AFTER =>
                {
                    path.told_lost = true;
                    return Some(Change::Lost { path: number });
                }
                None | Some(_) => {}
            }
        }
        None
    }
}

impl Path {
    fn is_ready(&self) -> bool {
        matches!(self.place, Place::Ready { .. })
    }

    fn is_used(&self) -> bool {
        matches!(self.place, Place::Used { .. })
    }

    fn is_agreed(&self) -> bool {
        matches!(self.place, Place::Used { agreed: true, .. })
    }

    fn session(&self) -> Option<SessionId> {
        match self.place {
            Place::Ready { id, .. } | Place::Used { id, .. } => Some(id),
            Place::Down { .. } | Place::Dialling { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);

    fn at(millis: u64) -> Instant {
        Instant::from_nanos((1000 + millis) * 1_000_000)
    }

    fn dialler(count: usize) -> Paths {
        Paths::new(count, true, PATIENCE, at(0))
    }

    /// Everything there is to do.
    fn todo(paths: &mut Paths, now: Instant) -> std::vec::Vec<Todo> {
        std::iter::from_fn(|| paths.todo(now)).collect()
    }

    /// Both paths stand, and the first carries the session.
    fn healthy() -> Paths {
        let mut paths = dialler(2);
        todo(&mut paths, at(0));
        paths.stands(0, SessionId(1), at(1));
        paths.stands(1, SessionId(2), at(1));
        let used = todo(&mut paths, at(1));
        let session = SessionId(1);
        assert_eq!(used, [Todo::Use { path: 0, session }]);
        assert_eq!(paths.agreed(0, session, at(2)), None);
        paths
    }

    #[test]
    fn all_paths_are_dialled_and_the_first_one_is_used() {
        let mut paths = dialler(2);
        let dialled = todo(&mut paths, at(0));
        assert_eq!(dialled, [Todo::Dial { path: 0 }, Todo::Dial { path: 1 }]);
        paths.stands(1, SessionId(7), at(1));
        assert_eq!(
            todo(&mut paths, at(2)),
            [],
            "the first one gets a moment more"
        );
        assert_eq!(paths.deadline(), Some(at(0) + ORDER_GRACE));
        let (path, session) = (1, SessionId(7));
        assert_eq!(todo(&mut paths, at(100)), [Todo::Use { path, session }]);
    }

    #[test]
    fn what_stands_ready_is_used_at_once_and_nothing_goes_back() {
        let mut paths = healthy();
        paths.ended(SessionId(1), 0, at(5000));
        let (path, session) = (1, SessionId(2));
        assert_eq!(todo(&mut paths, at(5000)), [Todo::Use { path, session }]);
        paths.agreed(1, SessionId(2), at(5001));
        assert_eq!(todo(&mut paths, at(5050)), [Todo::Dial { path: 0 }]);
        paths.stands(0, SessionId(3), at(5060));
        assert_eq!(todo(&mut paths, at(60_000)), []);
        let standing = [paths.standing(0), paths.standing(1)];
        assert_eq!(standing, [Standing::Ready, Standing::InUse]);
    }

    #[test]
    fn the_pause_grows_to_its_bound_and_is_short_after_a_session() {
        let mut paths = dialler(1);
        let mut now = at(0);
        for _ in 0..20 {
            assert_eq!(todo(&mut paths, now), [Todo::Dial { path: 0 }]);
            paths.failed(0, 255, now);
            let next = paths.deadline().unwrap();
            let pause = next.since(now);
            assert!((DIAL_PAUSE_MIN..=DIAL_PAUSE_MAX).contains(&pause));
            now = next;
        }
        todo(&mut paths, now);
        paths.stands(0, SessionId(1), now);
        todo(&mut paths, now);
        paths.agreed(0, SessionId(1), now);
        paths.ended(SessionId(1), 0, now);
        assert_eq!(paths.deadline(), Some(now + DIAL_PAUSE_MIN));
    }

    #[test]
    fn who_refuses_is_dialled_less_often_than_who_is_not_there() {
        let mut paths = dialler(1);
        let mut now = at(0);
        for number in 0..20 {
            todo(&mut paths, now);
            paths.stands(0, SessionId(number), now);
            todo(&mut paths, now);
            paths.ended(SessionId(number), 0, now);
            now = paths.deadline().unwrap();
        }
        todo(&mut paths, now);
        paths.stands(0, SessionId(99), now);
        paths.ended(SessionId(99), 0, now);
        assert_eq!(paths.deadline(), Some(now + REFUSED_PAUSE_MAX));
        todo(&mut paths, now + REFUSED_PAUSE_MAX);
        paths.failed(0, 0, now + REFUSED_PAUSE_MAX);
        let next = paths.deadline();
        assert_eq!(next, Some(now + REFUSED_PAUSE_MAX + DIAL_PAUSE_MAX));
    }

    #[test]
    fn a_silent_handshake_is_given_up_if_another_path_stands() {
        let mut paths = healthy();
        paths.ended(SessionId(1), 0, at(100));
        todo(&mut paths, at(100));
        assert_eq!(todo(&mut paths, at(150)), [Todo::Dial { path: 0 }]);
        assert_eq!(todo(&mut paths, at(3000)), [], "there is no other one");
        paths.stands(0, SessionId(3), at(3000));
        let (path, session) = (0, SessionId(3));
        let expected = [
            Todo::GiveUp {
                session: SessionId(2),
            },
            Todo::Use { path, session },
        ];
        assert_eq!(todo(&mut paths, at(3000)), expected);
    }

    #[test]
    fn a_handshake_in_which_somebody_speaks_is_not_given_up() {
        let mut paths = healthy();
        paths.ended(SessionId(1), 0, at(100));
        todo(&mut paths, at(100));
        todo(&mut paths, at(150));
        paths.stands(0, SessionId(3), at(200));
        paths.heard(SessionId(2), at(900));
        assert_eq!(todo(&mut paths, at(1200)), []);
        assert_eq!(paths.deadline(), Some(at(900) + PATIENCE));
    }

    #[test]
    fn a_lost_spare_is_told_once_and_so_is_its_return() {
        let mut paths = healthy();
        assert_eq!(paths.change(at(2500)), None);
        paths.ended(SessionId(2), 0, at(3000));
        assert_eq!(paths.change(at(4999)), None, "it may be back in a moment");
        assert_eq!(paths.change(at(5000)), Some(Change::Lost { path: 1 }));
        assert_eq!(paths.change(at(5000)), None);
        assert!(paths.is_told_lost(1));
        todo(&mut paths, at(5000));
        paths.stands(1, SessionId(4), at(6000));
        assert_eq!(paths.change(at(7000)), None, "it may be gone in a moment");
        assert_eq!(paths.change(at(8000)), Some(Change::Back { path: 1 }));
        assert_eq!(paths.change(at(9000)), None);
    }

    #[test]
    fn a_single_path_is_not_told() {
        let mut paths = dialler(1);
        todo(&mut paths, at(0));
        assert_eq!(paths.change(at(60_000)), None);
    }

    #[test]
    fn who_listens_keeps_the_newest_connection_of_each_path() {
        let mut paths = Paths::new(2, false, PATIENCE, at(0));
        assert_eq!(todo(&mut paths, at(60_000)), []);
        assert_eq!(paths.stands(1, SessionId(1), at(0)), None);
        assert_eq!(paths.stands(1, SessionId(2), at(0)), Some(SessionId(1)));
        assert!(paths.is_ready(SessionId(2)) && !paths.is_ready(SessionId(1)));
        let useless = paths.agreed(1, SessionId(9), at(0));
        assert_eq!(
            useless,
            Some(SessionId(2)),
            "another one of this path is used"
        );
        paths.stands(1, SessionId(3), at(0));
        assert!(!paths.is_ready(SessionId(3)), "the path is in use");
    }
}
