//! What a ring costs, counted: entries, system calls, bytes.

use super::{Completion, Kind};

const KINDS: usize = Kind::Inbox as usize + 1;

/// Everything that a ring has done since it was made. For benchmarks; nothing is decided by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Calls of io_uring_enter.
    pub enters: u64,
    /// Entries for the submission queue, by [`Kind`].
    entries: [u64; KINDS],
    /// Bytes that sockets took.
    pub sent_bytes: u64,
    /// Bytes that sockets gave.
    pub received_bytes: u64,
}

impl Work {
    /// Entries for the submission queue.
    pub fn entries(&self) -> u64 {
        self.entries.iter().sum()
    }

    /// Entries of a kind.
    pub fn entries_of(&self, kind: Kind) -> u64 {
        self.entries[kind as usize]
    }

    pub(super) fn entry(&mut self, kind: Kind) {
        self.entries[kind as usize] += 1;
    }

    pub(super) fn completion(&mut self, completion: &Completion) {
        let bytes = u64::try_from(completion.result).unwrap_or(0);
        match completion.token.kind {
            Kind::Send => self.sent_bytes += bytes,
            Kind::Receive => self.received_bytes += bytes,
            Kind::Ublk
            | Kind::Disk
            | Kind::Persist
            | Kind::Accept
            | Kind::Connect
            | Kind::Helper
            | Kind::Inbox => {}
        }
    }
}
