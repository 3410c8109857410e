//! What operators want of timeouts, and until when: made durable before it is followed or told, and over by itself.

use alloc::vec::Vec;

use mirror_core::types::{BootId, Instant, NodeId};

use crate::mutant::{self, Mutant};

use super::{Factor, LASTS_MAX, Over, Word};

/// When a word is over, by the clock of one boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The boot whose clock it is.
    pub boot: BootId,
    /// Since when it is followed.
    pub since: Instant,
    /// Until when.
    pub until: Instant,
}

/// What is kept on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// What was said last.
    pub word: Option<Word>,
    /// Until when it counts here, if it raises timeouts.
    pub ends: Option<Ends>,
    /// The largest promise that may have been made to the other node, and may have to be kept.
    pub promised: Factor,
}

impl Kept {
    /// Of a node that knows nothing.
    pub const NOTHING: Self = Self {
        word: None,
        ends: None,
        promised: Factor::ONE,
    };

    /// Of a node that cannot tell what it promised: as if it had been the most.
    pub const UNKNOWN: Self = Self {
        word: None,
        ends: None,
        promised: Factor::MAX,
    };
}

/// What the thread of the heartbeats may promise. It gives the number back, so that nobody takes an earlier state of it for the
/// present one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Another one for each change.
    pub number: u16,
    /// So much.
    pub factor: Factor,
}

impl Allowance {
    /// Nothing, to begin with.
    pub const NOTHING: Self = Self {
        number: 0,
        factor: Factor::ONE,
    };

    /// As one number.
    pub fn bits(self) -> u32 {
        u32::from(self.number) << 8 | u32::from(self.factor.tenths())
    }

    /// From [`Self::bits`]; what is none allows nothing.
    pub fn of_bits(bits: u32) -> Self {
        let [tenths, low, high, _] = bits.to_le_bytes();
        Self {
            number: u16::from_le_bytes([low, high]),
            factor: Factor::of_tenths(tenths).unwrap_or(Factor::ONE),
        }
    }
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Make this durable; [`Window::stored`] or [`Window::not_stored`] with this number comes back.
    Store {
        /// To be given back.
        version: u64,
        /// What.
        kept: Kept,
    },
    /// This word is durable here: it is to be told, and is followed.
    Rules(Word),
}

/// Of one node.
#[derive(Clone, Debug)]
pub struct Window {
    me: NodeId,
    boot: BootId,
    word: Option<Word>,
    ends: Option<Ends>,
    durable: Kept,
    writing: Option<Kept>,
    version: u64,
    /// What the heartbeats may still have to keep.
    waits: Factor,
    /// What they were allowed last.
    allowance: Allowance,
}

impl Window {
    /// Of a run in this boot, with what earlier ones kept. A word that was followed in another boot is over: nobody knows for
    /// how long this machine was off.
    pub fn new(me: NodeId, boot: BootId, kept: Kept) -> Self {
        let known = |ends: &Ends| ends.boot == boot;
        let reboot = kept.word.filter(Word::raises);
        let reboot = reboot.filter(|_| !kept.ends.as_ref().is_some_and(known));
        let over = reboot.map(|word| Word {
            over: Some(Over::Reboot),
            ..word
        });
        Self {
            me,
            boot,
            word: over.or(kept.word),
            ends: kept.ends.filter(known),
            durable: kept,
            writing: None,
            version: 0,
            waits: kept.promised,
            allowance: Allowance::NOTHING,
        }
    }

    /// What was said last, durable or not.
    pub fn newest(&self) -> Option<&Word> {
        self.word.as_ref()
    }

    /// What was said last, durable here.
    pub fn durable(&self) -> Option<&Word> {
        self.durable.word.as_ref()
    }

    /// Since and until when what is followed counts, if it raises timeouts.
    pub fn ends(&self) -> Option<Ends> {
        let word = self.durable.word.filter(Word::raises);
        self.durable.ends.filter(|_| word.is_some())
    }

    /// An operator says so here, for so long at most as [`LASTS_MAX`].
    pub fn say(&mut self, now: Instant, factor: Factor, lasts: core::time::Duration) -> Word {
        let number = self.word.map_or(0, |word| word.number).saturating_add(1);
        let word = Word {
            number,
            by: self.me,
            factor,
            lasts: lasts.min(LASTS_MAX),
            over: None,
        };
        self.take(now, word);
        word
    }

    /// The other node tells this.
    pub fn hear(&mut self, now: Instant, word: Word) {
        if self.word.is_none_or(|known| word.beats(&known)) {
            self.take(now, word);
        }
    }

    fn take(&mut self, now: Instant, word: Word) {
        self.ends = word.raises().then(|| Ends {
            boot: self.boot,
            since: now,
            until: now + word.lasts,
        });
        self.word = Some(word);
    }

    /// What the heartbeats may promise at `now`. `waiting`: by which factor whoever starts services here waits already; no more is
    /// allowed.
    pub fn allowance(&mut self, now: Instant, waiting: Factor) -> Allowance {
        let allowed = self.allowed(now);
        let early = [Mutant::PromiseBeforeWait, Mutant::PromiseBeforeDurable];
        let factor = if early.into_iter().any(mutant::is) {
            allowed
        } else {
            allowed.min(waiting)
        };
        if factor != self.allowance.factor {
            let number = self.allowance.number.wrapping_add(1);
            self.allowance = Allowance { number, factor };
        }
        self.allowance
    }

    /// How much the heartbeats promise at `now`: what rules durably, in its time.
    pub fn allowed(&self, now: Instant) -> Factor {
        let word = self.durable.word.filter(Word::raises);
        let lasts = self.durable.ends.filter(|ends| now < ends.until);
        if mutant::is(Mutant::PromiseBeforeDurable) {
            let newest = self.word.filter(Word::raises);
            return newest.map_or(Factor::ONE, |word| word.factor);
        }
        // What takes it back, or lowers it, need not be durable.
        let newest = self.word.filter(Word::raises);
        match (word, newest, lasts) {
            (Some(word), Some(newest), Some(_)) => {
                word.factor.min(newest.factor).min(self.durable.promised)
            }
            (Some(_) | None, Some(_) | None, _) => Factor::ONE,
        }
    }

    /// How many times as long this node waits: no less than what it may have promised.
    pub fn waits(&self) -> Factor {
        self.durable.promised
    }

    /// The heartbeats wait by this factor, and knew the allowance of this number when they said so.
    pub fn kept(&mut self, number: u16, waits: Factor) {
        let known = number == self.allowance.number;
        self.waits = if known { waits } else { self.durable.promised };
    }

    /// What has to be made durable, if nothing is on its way. Call it whenever time passed or something was said, and some time after
    /// [`Self::not_stored`].
    pub fn store(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let ended = self.ends.is_some_and(|ends| now >= ends.until);
        if let Some(word) = self.word.as_mut().filter(|word| word.raises() && ended) {
            word.over = Some(Over::Time);
        }
        let raised = self.word.filter(Word::raises);
        if raised.is_none() {
            self.ends = None;
        }
        let kept = Kept {
            word: self.word,
            ends: self.ends,
            promised: raised.map_or(self.waits, |word| word.factor.max(self.waits)),
        };
        if self.writing.is_none() && kept != self.durable {
            self.version += 1;
            self.writing = Some(kept);
            let version = self.version;
            effects.push(Effect::Store { version, kept });
        }
    }

    /// It is durable.
    pub fn stored(&mut self, now: Instant, version: u64, effects: &mut Vec<Effect>) {
        let Some(kept) = self.writing.take_if(|_| version == self.version) else {
            return;
        };
        // From now on that much may be promised.
        self.waits = self.waits.max(kept.promised);
        let before = core::mem::replace(&mut self.durable, kept);
        if let Some(word) = kept.word.filter(|_| kept.word != before.word) {
            effects.push(Effect::Rules(word));
        }
        self.store(now, effects);
    }

    /// It could not be made durable.
    pub fn not_stored(&mut self, version: u64) {
        self.writing.take_if(|_| version == self.version);
    }
}
