//! Raised timeouts in the thread of the heartbeats, and what it shares with the loop that decides
//! ([`controlplane_core::timeouts`]). No locks, no allocation.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::Receiver;

use controlplane_core::timeouts::{Allowance, Factor, Pledge, Raised, Told, Word};
use mirror_core::types::Instant;

/// A word about timeouts takes the place of a wish in one of so many rounds of heartbeats.
const WORD_ROUNDS: u32 = 4;

/// What is read and written on both sides.
#[derive(Debug)]
pub struct Shared {
    /// What may be promised; written by the loop, once that is durable and waited for.
    allowance: AtomicU32,
    /// How long this node waits, with the number of the allowance that was known then; written by the thread.
    waits: AtomicU32,
    /// What lengthened the lease last; written by the thread, after the gaps before it.
    raised: AtomicU64,
    /// What the peer said last: its promise and its lease in tenths; 0 while nothing is known, or by a release before this one.
    peer: AtomicU32,
}

impl Default for Shared {
    fn default() -> Self {
        Self::new(Factor::ONE)
    }
}

impl Shared {
    /// `promised`: what earlier runs may have promised.
    pub(super) fn new(promised: Factor) -> Self {
        let unknown = Allowance {
            number: u16::MAX,
            factor: promised,
        };
        Self {
            allowance: AtomicU32::new(Allowance::NOTHING.bits()),
            waits: AtomicU32::new(unknown.bits()),
            raised: AtomicU64::new(0),
            peer: AtomicU32::new(0),
        }
    }

    /// So much may be promised from now on: it is durable, and nobody begins here before that time.
    pub fn allow(&self, allowance: Allowance) {
        self.allowance.store(allowance.bits(), Ordering::Release);
    }

    /// How long the heartbeats wait, and the number of the allowance that they knew.
    pub fn waits(&self) -> Allowance {
        Allowance::of_bits(self.waits.load(Ordering::Acquire))
    }

    /// What lengthened the lease last. To be read before the gaps are: whoever sees it sees those before it.
    pub fn raised(&self) -> Option<Raised> {
        Raised::of_bits(self.raised.load(Ordering::Acquire))
    }

    /// The promise and the lease of the peer, as it told them last; `None` if it told none.
    pub fn peer(&self) -> Option<(Factor, Factor)> {
        let [waits, lease, ..] = self.peer.load(Ordering::Relaxed).to_le_bytes();
        Factor::of_tenths(waits).zip(Factor::of_tenths(lease))
    }
}

/// What the thread keeps.
pub(super) struct Part {
    pub(super) pledge: Pledge,
    /// What was said last, durable here.
    word: Option<Word>,
    durable: Receiver<Word>,
    round: u32,
}

impl Part {
    pub(super) fn new(pledge: Pledge, word: Option<Word>, durable: Receiver<Word>) -> Self {
        Self {
            pledge,
            word,
            durable,
            round: 0,
        }
    }

    /// A round of heartbeats is made. What they promise holds from now on, and whoever decides sees it before they go out.
    pub(super) fn beat(&mut self, now: Instant, shared: &Shared) -> Told {
        while let Ok(word) = self.durable.try_recv() {
            self.word = Some(word);
        }
        self.round = self.round.wrapping_add(1);
        let allowance = Allowance::of_bits(shared.allowance.load(Ordering::Acquire));
        self.pledge.allow(allowance.factor);
        let told = Told {
            waits: Some(self.pledge.tell(now)),
            lease: Some(self.pledge.lease()),
            word: self.word.filter(|_| self.round.is_multiple_of(WORD_ROUNDS)),
        };
        let waits = Allowance {
            number: allowance.number,
            factor: self.pledge.waits(now),
        };
        shared.waits.store(waits.bits(), Ordering::Release);
        told
    }

    /// A heartbeat of the peer counts. Whatever it confirms, and the gap before it, is told already.
    pub(super) fn hear(&mut self, told: &Told, raised: Option<Raised>, shared: &Shared) {
        if let Some(raised) = raised {
            shared.raised.store(raised.bits(), Ordering::Release);
        }
        let tenths = |factor: Option<Factor>| factor.map_or(0, Factor::tenths);
        let bytes = [tenths(told.waits), tenths(told.lease), 0, 0];
        shared
            .peer
            .store(u32::from_le_bytes(bytes), Ordering::Relaxed);
    }

    /// Whether a word of the peer is none that is told here.
    pub(super) fn is_news(&self, word: &Word) -> bool {
        self.word.is_none_or(|known| word.beats(&known))
    }
}
