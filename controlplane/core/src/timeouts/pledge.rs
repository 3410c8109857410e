//! What a node promises the other one in its heartbeats, and what it makes of the other one's promise. For the thread of the
//! heartbeats: nothing here allocates.

use core::time::Duration;

use mirror_core::types::Instant;

use crate::mutant::{self, Mutant};

use super::{Factor, Span, Told};

/// A promise that was made: to wait so many times as long, until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Promise {
    factor: Factor,
    until: Instant,
}

impl Promise {
    const NONE: Self = Self {
        factor: Factor::ONE,
        until: Instant::from_nanos(0),
    };

    fn at(self, now: Instant) -> Factor {
        if now < self.until {
            self.factor
        } else {
            Factor::ONE
        }
    }

    /// One that holds whenever one of both does, by whichever is longer.
    fn and(self, other: Self, now: Instant) -> Self {
        match (self.at(now).raises(), other.at(now).raises()) {
            (true, true) => Self {
                factor: self.factor.max(other.factor),
                until: self.until.max(other.until),
            },
            (true, false) => self,
            (false, _) => other,
        }
    }
}

/// A lease that a heartbeat of the other node gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raised {
    /// When this node sent what that one confirmed.
    pub sent: Instant,
    /// So many times as long as configured.
    pub factor: Factor,
}

impl Raised {
    /// As one number, the moment rounded down to whole microseconds.
    pub fn bits(self) -> u64 {
        let micros = self.sent.as_nanos() / 1000;
        micros << 8 | u64::from(self.factor.tenths())
    }

    /// From [`Self::bits`]; `None` if it is none.
    pub fn of_bits(bits: u64) -> Option<Self> {
        let [tenths, ..] = bits.to_le_bytes();
        Some(Self {
            sent: Instant::from_nanos((bits >> 8) * 1000),
            factor: Factor::of_tenths(tenths)?,
        })
    }
}

/// Of one node.
#[derive(Clone, Copy, Debug)]
pub struct Pledge {
    span: Span,
    /// What may be said: it is durable that it was.
    allowed: Factor,
    /// What was said last.
    last: Promise,
    /// What was said before, as long as it is to be kept.
    before: Promise,
    /// What lengthened the lease last.
    raised: Option<Raised>,
}

impl Pledge {
    /// Of a run that begins. `left`: what earlier runs may have promised; nobody knows when, so it counts from now.
    pub fn new(now: Instant, span: Span, left: Factor) -> Self {
        let left = if mutant::is(Mutant::PromiseLostByRestart) {
            Factor::ONE
        } else {
            left
        };
        let before = Promise {
            factor: left,
            until: now + span.kept(left),
        };
        Self {
            span,
            allowed: Factor::ONE,
            last: Promise::NONE,
            before,
            raised: None,
        }
    }

    /// So much may be promised from now on; it is durable, and whoever starts services waits so long already.
    pub fn allow(&mut self, factor: Factor) {
        self.allowed = factor;
    }

    /// A heartbeat is made: what it promises. It holds from now on.
    pub fn tell(&mut self, now: Instant) -> Factor {
        let factor = self.allowed;
        if factor != self.last.factor {
            self.before = self.before.and(self.last, now);
        }
        self.last = Promise {
            factor,
            until: now + self.span.kept(factor),
        };
        factor
    }

    /// How many times as long this node waits at `now`.
    pub fn waits(&self, now: Instant) -> Factor {
        self.last.at(now).max(self.before.at(now))
    }

    /// The other node was heard, and said this: the lease that it gives. `confirms`: when this node, in this run, sent what it had
    /// received by then; what confirms nothing gives nothing.
    pub fn hear(&self, told: &Told, confirms: Option<Instant>) -> Option<Raised> {
        let waits = told.waits.unwrap_or(Factor::ONE);
        let factor = if mutant::is(Mutant::LeaseUnpromised) {
            self.allowed
        } else {
            self.allowed.min(waits)
        };
        let sent = confirms.filter(|_| factor.raises())?;
        Some(Raised { sent, factor })
    }

    /// That lengthened the lease ([`crate::self_fencing::Confirmations::raise`]): what comes on another path may be older, and end before.
    pub fn raised(&mut self, raised: Raised) {
        self.raised = Some(raised);
    }

    /// How many times as long the lease is at `now`; it runs out with what lengthened it.
    pub fn lease(&self, now: Instant) -> Factor {
        let lasts = |raised: &Raised| now < self.until(*raised);
        let raised = self.raised.filter(lasts);
        raised.map_or(Factor::ONE, |raised| raised.factor)
    }

    /// Until when a lease lasts by that.
    pub fn until(&self, raised: Raised) -> Instant {
        raised.sent + self.lease_of(raised.factor)
    }

    /// The silence that makes a path down meanwhile.
    pub fn timeout_of(&self, factor: Factor) -> Duration {
        factor.times(self.span.timeout)
    }

    /// How long a lease is by that factor.
    pub fn lease_of(&self, factor: Factor) -> Duration {
        factor.times(self.span.lease)
    }
}
