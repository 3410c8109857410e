//! Flushes that have nothing to do: what an application flushes after every write is written durably at once.
//!
//! A write and a flush after it are two round trips to the peer, and two visits of each disk. Who commits transactions
//! does nothing else. So where the last flushes each came after a write or two, the next such write goes out as one
//! that has to be durable on both copies before it is acknowledged, as with FUA; the flush after it finds that nothing
//! is loose, and is answered where it is. A guess that was wrong costs a durable write for an ordinary one, and ends the guessing.
//!
//! S1 is untouched: a flush is answered without a visit only if everything that was acknowledged before it is durable on
//! every copy that counts, by an answer of that copy's disk.

use crate::event::{Request, RequestKind};
use crate::mutant::{self, Mutant};

/// So many changes between two flushes are still a commit.
const CHANGES_MAX: u32 = 2;
/// After so many commits in a row the next one is guessed.
const COMMITS_MIN: u32 = 4;

/// What no flush covers yet, and what will be flushed soon.
#[derive(Clone, Copy, Debug)]
pub(super) struct Durable {
    /// Counts what ended without being durable on every copy that counts, and whatever else makes that unsure.
    loose: u64,
    /// All up to this one is flushed.
    flushed: u64,
    /// Changes that began since the last flush.
    changes: u32,
    /// Flushes in a row before which hardly anything changed.
    commits: u32,
}

impl Default for Durable {
    /// Nothing is known of what was there before.
    fn default() -> Self {
        Self {
            loose: 1,
            flushed: 0,
            changes: 0,
            commits: 0,
        }
    }
}

impl Durable {
    /// Which copies count changes, or what they hold: the next flush goes to all of them. Each such change flushes what it
    /// has to by itself; that nothing is concluded over it costs one visit.
    pub(super) fn unsure(&mut self) {
        self.loose += 1;
    }

    /// A change that is not known to be durable on every copy that counts has ended.
    pub(super) fn ended_loose(&mut self) {
        self.loose += 1;
    }

    /// Whether a flush has nothing to do.
    pub(super) fn is_all(&self) -> bool {
        self.loose == self.flushed || mutant::is(Mutant::FlushSkipped)
    }

    /// A change begins. Returns whether it shall be durable before it is acknowledged.
    pub(super) fn change_begins(&mut self, request: &Request) -> bool {
        self.changes = self.changes.saturating_add(1);
        if self.changes > CHANGES_MAX {
            self.commits = 0;
        }
        let guessed = self.commits >= COMMITS_MIN && self.loose == self.flushed;
        guessed && request.kind == RequestKind::Write
    }

    /// A flush begins. Returns what it will cover.
    pub(super) fn flush_begins(&mut self) -> u64 {
        match self.changes {
            0 => {}
            1..=CHANGES_MAX => self.commits = self.commits.saturating_add(1),
            _ => self.commits = 0,
        }
        self.changes = 0;
        self.loose
    }

    /// A flush of every copy that counts, which covers that much, ended well.
    pub(super) fn flush_ended(&mut self, covers: u64) {
        let covers = if mutant::is(Mutant::FlushCoversLater) {
            self.loose
        } else {
            covers
        };
        self.flushed = self.flushed.max(covers);
    }
}

#[cfg(test)]
mod tests {
    use super::{COMMITS_MIN, Durable};
    use crate::event::{Request, RequestKind};
    use crate::types::{SectorRange, Tag};

    fn change(kind: RequestKind) -> Request {
        Request {
            tag: Tag(0),
            kind,
            range: SectorRange::new(0, 8),
            fua: false,
        }
    }

    /// A write and a flush, as the engine tells of them. Returns whether the write was durable and the flush for nothing.
    fn commit(durable: &mut Durable, writes: u32) -> (bool, bool) {
        let mut all = true;
        for _ in 0..writes {
            let guessed = durable.change_begins(&change(RequestKind::Write));
            if !guessed {
                durable.ended_loose();
            }
            all &= guessed;
        }
        let free = durable.is_all();
        let covers = durable.flush_begins();
        durable.flush_ended(covers);
        (all, free)
    }

    #[test]
    fn a_flush_after_each_write_is_guessed_after_some() {
        let mut durable = Durable::default();
        assert!(!durable.is_all(), "nothing is known at the beginning");
        for _ in 0..COMMITS_MIN {
            assert_eq!(commit(&mut durable, 1), (false, false));
        }
        assert_eq!(commit(&mut durable, 1), (true, true));
        assert_eq!(commit(&mut durable, 2), (true, true));
    }

    #[test]
    fn many_writes_without_a_flush_end_the_guessing() {
        let mut durable = Durable::default();
        for _ in 0..=COMMITS_MIN {
            commit(&mut durable, 1);
        }
        assert_eq!(commit(&mut durable, 9), (false, false));
        assert_eq!(commit(&mut durable, 1), (false, false));
    }

    #[test]
    fn whatever_is_unsure_sends_the_next_flush_to_all() {
        let mut durable = Durable::default();
        for _ in 0..=COMMITS_MIN {
            commit(&mut durable, 1);
        }
        durable.unsure();
        assert!(!durable.is_all());
        let discard = change(RequestKind::Discard);
        assert!(!durable.change_begins(&discard));
        let covers = durable.flush_begins();
        durable.ended_loose();
        durable.flush_ended(covers);
        assert!(!durable.is_all(), "it ended after the flush had begun");
    }
}
