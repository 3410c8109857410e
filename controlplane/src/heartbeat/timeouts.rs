//! Raised timeouts in the thread of the heartbeats, and what it shares with the loop that decides
//! ([`controlplane_core::timeouts`]). No locks, no allocation.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::Receiver;

use controlplane_core::timeouts::{Allowance, Factor, Pledge, Raised, Told, Word};
use mirror_core::types::Instant;

/// A word about timeouts takes the place of a wish in one of so many rounds of heartbeats.
const WORD_ROUNDS: u32 = 4;
/// In the first one: of the newest wish, which is told in every odd one. In the even ones all wishes have their turn
/// ([`controlplane_core::wish::Teller`]).
const WORD_ROUND: u32 = 1;
/// Once the other node tells it as well, it is told so many times more: that one has to hear that this node has it.
const TOLD_MORE: u32 = 8;

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
    /// So many times it is told yet.
    to_tell: u32,
}

impl Part {
    pub(super) fn new(pledge: Pledge, word: Option<Word>, durable: Receiver<Word>) -> Self {
        Self {
            pledge,
            word,
            durable,
            round: 0,
            to_tell: u32::MAX,
        }
    }

    /// The other node begins a run: it may know nothing.
    pub(super) fn tell_anew(&mut self) {
        self.to_tell = u32::MAX;
    }

    /// A round of heartbeats is made. What they promise holds from now on, and whoever decides sees it before they go out.
    pub(super) fn beat(&mut self, now: Instant, shared: &Shared) -> Told {
        while let Ok(word) = self.durable.try_recv() {
            self.word = Some(word);
            self.to_tell = u32::MAX;
        }
        self.round = self.round.wrapping_add(1);
        let tells = self.round % WORD_ROUNDS == WORD_ROUND && self.to_tell > 0;
        if tells && self.word.is_some() && self.to_tell < u32::MAX {
            self.to_tell -= 1;
        }
        let allowance = Allowance::of_bits(shared.allowance.load(Ordering::Acquire));
        self.pledge.allow(allowance.factor);
        let told = Told {
            waits: Some(self.pledge.tell(now)),
            lease: Some(self.pledge.lease(now)),
            word: self.word.filter(|_| tells),
        };
        let waits = Allowance {
            number: allowance.number,
            factor: self.pledge.waits(now),
        };
        shared.waits.store(waits.bits(), Ordering::Release);
        told
    }

    /// A heartbeat of the peer counts. Whatever it confirms, and the gap before it, is told already. `raised`: if that lengthens the
    /// lease.
    pub(super) fn hear(&mut self, told: &Told, raised: Option<Raised>, shared: &Shared) {
        if told.word.is_some() && told.word == self.word {
            self.to_tell = self.to_tell.min(TOLD_MORE);
        }
        if let Some(raised) = raised {
            self.pledge.raised(raised);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{SyncSender, sync_channel};
    use std::time::Duration;

    use controlplane_core::self_fencing::Leases;
    use controlplane_core::timeouts::Span;
    use controlplane_core::wish::{GroupKey, Origin, Subject, Teller, Want, Wish};
    use mirror_core::types::NodeId;

    fn part() -> (Part, SyncSender<Word>) {
        let second = Duration::from_secs(1);
        let span = Span {
            timeout: second * 2,
            lease: second * 2,
            leases: Leases::Kept,
            takeover_wait: second,
        };
        let pledge = Pledge::new(Instant::default(), span, Factor::ONE);
        let (sender, words) = sync_channel(1);
        (Part::new(pledge, None, words), sender)
    }

    fn word(number: u64) -> Word {
        Word {
            number,
            by: NodeId::new(0).expect("a node"),
            factor: Factor::MAX,
            lasts: Duration::from_secs(60),
            over: None,
        }
    }

    /// A word takes the place of a wish; those that are told in turn must not meet it each time.
    #[test]
    fn no_wish_and_no_word_is_kept_from_the_other_node_by_the_others() {
        for wishes in [1, 2, 3, 4, 8] {
            let (mut part, sender) = part();
            sender.send(word(1)).expect("room");
            let mut teller = Teller::with_room(8);
            for key in 0..wishes {
                teller.learn(Wish {
                    subject: Subject::Group(GroupKey(key)),
                    number: key + 1,
                    by: NodeId::new(0).expect("a node"),
                    want: Want::Stopped { home: None },
                    origin: Origin::Operator,
                });
            }
            let mut told = std::collections::BTreeSet::new();
            let mut words = 0;
            for _ in 0..40 {
                let wish = teller.say().wish.expect("one");
                match part.beat(Instant::default(), &Shared::default()).word {
                    Some(_) => words += 1,
                    None => drop(told.insert(wish.number)),
                }
            }
            assert_eq!(told.len(), usize::try_from(wishes).expect("few"));
            assert_eq!(words, 10);
        }
    }

    #[test]
    fn a_word_that_both_nodes_tell_is_told_no_more_until_there_is_another_one_or_another_run() {
        let (mut part, sender) = part();
        let shared = Shared::default();
        let tells = |part: &mut Part| {
            let beat = |_| part.beat(Instant::default(), &shared).word;
            (0..200).filter_map(beat).count()
        };
        sender.send(word(1)).expect("room");
        assert_eq!(tells(&mut part), 50);
        let heard = |number| Told {
            word: Some(word(number)),
            ..Told::default()
        };
        part.hear(&heard(9), None, &Shared::default());
        assert_eq!(tells(&mut part), 50, "that one knows another one");
        part.hear(&heard(1), None, &Shared::default());
        assert_eq!(tells(&mut part), usize::try_from(TOLD_MORE).expect("few"));
        assert_eq!(tells(&mut part), 0);
        part.tell_anew();
        assert_eq!(tells(&mut part), 50);
        part.hear(&heard(1), None, &Shared::default());
        sender.send(word(2)).expect("room");
        assert_eq!(tells(&mut part), 50);
    }
}
