//! Timeouts that operators raise for a while: judged, made durable, told to the other node, followed, and over by themselves
//! ([`controlplane_core::timeouts`]).

use std::time::Duration;

use controlplane_api::cluster;
use controlplane_api::verbs::{self, Said};
use controlplane_core::failure_detector::Presence;
use controlplane_core::keeper::{Event, Keeper};
use controlplane_core::timeouts::{
    Effect, Factor, Kept, LASTS_MAX, LASTS_MIN, Over, RAISED_TIMEOUT_MAX, Raised, Span, Stage,
    Window, Word, stage,
};
use mirror_core::admin::Problem;
use mirror_core::types::{BootId, Instant};

use super::judge::refused;
use super::operator::overruled;
use super::{Answer, Incoming, Node, now};
use crate::config::Config;
use crate::timeouts::Store;

/// What could not be made durable is tried again after this time.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// The smallest factor that an operator may say.
const FACTOR_MIN_TENTHS: u8 = 11;

/// Where a node keeps them.
#[derive(Debug)]
pub struct Timeouts {
    window: Window,
    span: Span,
    store: Store,
    store_again_at: Option<Instant>,
    store_fails: bool,
    began: Instant,
    waiting: Vec<(Word, Said, Answer)>,
    untold: Option<Word>,
    raised: Option<Raised>,
    told: Option<Stage>,
    not_before: Instant,
}

impl Timeouts {
    /// Of a run that begins. What is kept of earlier ones, if it can be read; if not, the most may have been promised.
    pub fn begin(config: &Config, boot: BootId, store: Store) -> (Self, Kept) {
        let kept = store.load().unwrap_or_else(|error| {
            tracing::error!(code = "LS6195", %error, "nobody knows what this node promised: it takes over later for a while");
            Kept::UNKNOWN
        });
        let timeouts = Self {
            window: Window::new(config.me, boot, kept),
            span: config.span(),
            store,
            store_again_at: None,
            store_fails: false,
            began: now(),
            waiting: Vec::new(),
            untold: None,
            raised: None,
            told: None,
            not_before: Instant::default(),
        };
        (timeouts, kept)
    }
}

impl Node {
    /// What changes with time, and what whoever starts something here has to know before the other node is promised anything.
    pub(super) fn tick_timeouts(&mut self, current: Instant) {
        let waits = self.timeouts.window.waits();
        let stretch = self.timeouts.span.stretch(waits);
        self.services.wait_longer(current, stretch);
        let waiting = waits;
        if self.presence != Presence::Alive {
            self.tell_not_before();
        }
        let shared = &self.shared.timeouts;
        shared.allow(self.timeouts.window.allowance(current, waiting));
        let known = shared.waits();
        self.timeouts.window.kept(known.number, known.factor);
        let again = self.timeouts.store_again_at;
        if again.is_none_or(|at| at <= current) {
            self.timeouts.store_again_at = None;
            let mut effects = Vec::new();
            self.timeouts.window.store(current, &mut effects);
            self.follow_timeouts(effects);
        }
        if let Some(word) = self.timeouts.untold
            && self.words.try_send(word).is_ok()
        {
            self.timeouts.untold = None;
        }
        self.tell_stage();
    }

    /// Nothing is taken over before: the other node goes by what it was promised.
    pub(super) fn tell_not_before(&mut self) {
        let silence = self.timeouts.span.silence(self.timeouts.window.waits());
        let heard = self.shared.heard().max(self.timeouts.began);
        let at = if silence.is_zero() {
            Instant::default()
        } else {
            heard + silence
        };
        if at != self.timeouts.not_before {
            self.timeouts.not_before = at;
            self.everywhere(&Event::NotBefore(at));
        }
    }

    /// When the other node counts as dead for whoever starts services here, of one that is dead since then.
    pub(super) fn dead_for_services(&self, since: Instant) -> Instant {
        since.max(self.timeouts.not_before)
    }

    /// What the other node's promise makes of the lease. `raised` was read before the gaps were, and is told after them.
    pub(super) fn raise_leases(&mut self, raised: Option<Raised>) {
        let lease_of = |raised: &Raised| raised.factor.times(self.timeouts.span.lease);
        let until = |raised: &Raised| raised.sent + lease_of(raised);
        let known = self.timeouts.raised;
        let longer = |new: &Raised| known.is_none_or(|known| until(new) > until(&known));
        if let Some(new) = raised.filter(longer) {
            self.timeouts.raised = Some(new);
        }
        let current = now();
        let Some(raised) = self.timeouts.raised.filter(|it| current < until(it)) else {
            return;
        };
        // A keeper takes none in a gap, nor once its lease is over: it is told again until it does.
        let (sent, lease) = (raised.sent, lease_of(&raised));
        let lacks = |keeper: &Keeper| keeper.raised_until() < until(&raised);
        if self.groups.iter().any(|group| lacks(&group.keeper)) {
            self.everywhere(&Event::Raised { sent, lease });
        }
    }

    /// How long the lease of the groups here is, of the one that has the shortest.
    pub(super) fn lease_length(&self, current: Instant) -> Duration {
        let keepers = self.groups.iter().map(|group| &group.keeper);
        let shortest = keepers.map(|keeper| keeper.lease_length(current)).min();
        shortest.unwrap_or(self.config.lease)
    }

    // --- words ---------------------------------------------------------------------------------

    /// An operator wants the timeouts so many tenths as long for so many seconds; as configured without.
    pub(super) fn timeouts_verb(&mut self, wanted: Option<(u16, u64)>, answer: Answer) {
        let judged = match wanted {
            Some((tenths, seconds)) => self.judge_raise(tenths, seconds),
            None => Ok(self.judge_reset()),
        };
        let (word, message) = match judged {
            // Who asked may be gone.
            Err(problem) => return drop(answer.send(Err(problem))),
            Ok((Some((factor, lasts)), message)) => {
                let word = self.timeouts.window.say(now(), factor, lasts);
                (Some(word), message)
            }
            Ok((None, message)) => (None, message),
        };
        let said = Said {
            schema: verbs::SCHEMA.to_string(),
            ok: true,
            number: word.map(|word| word.number),
            by: word.map(|word| self.name_of(word.by)),
            node: None,
            message,
        };
        let Some(word) = word else {
            return drop(answer.send(Ok(said)));
        };
        self.timeouts.waiting.push((word, said, answer));
        self.tick_timeouts(now());
    }

    fn judge_raise(
        &self,
        tenths: u16,
        seconds: u64,
    ) -> Result<(Option<(Factor, Duration)>, String), Problem> {
        let lasts = Duration::from_secs(seconds);
        let factor = u8::try_from(tenths).ok().and_then(Factor::of_tenths);
        let factor = factor.filter(|factor| factor.tenths() >= FACTOR_MIN_TENTHS);
        let range = LASTS_MIN..=LASTS_MAX;
        let Some(factor) = factor.filter(|_| range.contains(&lasts)) else {
            return Err(refused(
                "LS6190",
                "timeouts cannot be raised by that factor, or for that time",
                "a factor is 1.1 to 20 with one digit after the point, the time one minute to 24 hours: `lockstep timeouts \
                 scale 3 --for 1h`",
            ));
        };
        let plain = self.timeouts.span.timeout;
        let raised = plain * u32::from(factor.tenths()) / 10;
        if !factor.fits(plain) {
            return Err(refused(
                "LS6191",
                format!(
                    "{factor} times heartbeat_timeout_ms is {}, and no raised timeout is above {}",
                    seconds_of(raised),
                    seconds_of(RAISED_TIMEOUT_MAX)
                ),
                "say a smaller factor",
            ));
        }
        let peer = &self.config.peer_name;
        if !self.is_peer_heard() {
            return Err(refused(
                "LS6192",
                format!(
                    "the control plane of {peer} is not heard on {}",
                    self.config.name
                ),
                format!(
                    "timeouts are raised where both nodes wait for each other; see that {peer} and its lockstepd run, and \
                     the interconnects in `lockstep status`"
                ),
            ));
        }
        if self.shared.timeouts.peer().is_none() {
            return Err(refused(
                "LS6193",
                format!("{peer} runs a release that cannot raise timeouts"),
                format!("upgrade lockstepd on {peer}"),
            ));
        }
        let text = format!(
            "timeouts are raised {factor} times on both nodes for {}: a node that is silent counts as dead after {}, not {}; \
             `lockstep timeouts` shows it, `lockstep timeouts reset` ends it",
            time_of(lasts),
            seconds_of(raised),
            seconds_of(plain)
        );
        Ok((Some((factor, lasts)), text))
    }

    fn judge_reset(&self) -> (Option<(Factor, Duration)>, String) {
        if !self.timeouts.window.newest().is_some_and(Word::raises) {
            return (None, "timeouts are not raised".to_string());
        }
        let text = format!(
            "timeouts are as configured again, as soon as what the nodes promised each other has run out{}",
            self.untold()
        );
        (Some((Factor::ONE, Duration::ZERO)), text)
    }

    /// The other node tells what was said last.
    pub(super) fn hear_timeouts(&mut self, word: Word) {
        self.timeouts.window.hear(now(), word);
        self.tick_timeouts(now());
    }

    pub(super) fn timeouts_stored(&mut self, version: u64, error: Option<String>) {
        let mut effects = Vec::new();
        match error {
            None => {
                let current = now();
                self.timeouts.store_fails = false;
                self.timeouts.window.stored(current, version, &mut effects);
            }
            Some(error) => {
                if !std::mem::replace(&mut self.timeouts.store_fails, true) {
                    tracing::error!(code = "LS6194", "{error}");
                }
                self.timeouts.window.not_stored(version);
                self.timeouts.store_again_at = Some(now() + STORE_RETRY);
                for (_, _, answer) in self.timeouts.waiting.drain(..) {
                    let problem = refused(
                        "LS6194",
                        format!("it is not durable on {}: {error}", self.config.name),
                        "see that there is room; as long as lockstepd runs it is tried again every second, and followed then",
                    );
                    drop(answer.send(Err(problem)));
                }
            }
        }
        self.follow_timeouts(effects);
        self.tick_timeouts(now());
    }

    fn follow_timeouts(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Store { version, kept } => {
                    let (store, queue) = (self.timeouts.store.clone(), self.queue.clone());
                    tokio::task::spawn_blocking(move || {
                        let error = store.save(&kept).err().map(|error| error.to_string());
                        let _ = queue.blocking_send(Incoming::TimeoutsStored { version, error });
                    });
                }
                Effect::Rules(word) => self.timeouts_rule(word),
            }
        }
    }

    /// A word is durable here: it is told, and followed.
    fn timeouts_rule(&mut self, word: Word) {
        let (number, by) = (word.number, self.name_of(word.by));
        let factor = word.factor.to_string();
        let lasts = time_of(word.lasts);
        match word.over {
            None if word.factor.raises() => tracing::warn!(
                code = "LS6196",
                factor,
                lasts,
                number,
                by,
                "an operator raises timeouts for a while"
            ),
            None => tracing::info!(
                code = "LS6197",
                number,
                by,
                "an operator ends raised timeouts"
            ),
            Some(Over::Time) => tracing::info!(
                code = "LS6197",
                factor,
                number,
                by,
                "the time of raised timeouts is over"
            ),
            Some(Over::Reboot) => tracing::info!(
                code = "LS6197",
                factor,
                number,
                by,
                "raised timeouts are over: a node booted"
            ),
        }
        self.timeouts.untold = Some(word);
        for (waited, said, answer) in std::mem::take(&mut self.timeouts.waiting) {
            if waited == word {
                drop(answer.send(Ok(said)));
            } else if (word.number, word.by) == (waited.number, waited.by) {
                let problem = refused(
                    "LS6194",
                    "its time was over before it was durable",
                    "see that the disk below /var/lib/lockstep answers, and say it again",
                );
                drop(answer.send(Err(problem)));
            } else if word.beats(&waited) {
                drop(answer.send(Err(overruled(&by))));
            } else {
                self.timeouts.waiting.push((waited, said, answer));
            }
        }
    }

    // --- what is told --------------------------------------------------------------------------

    fn stage(&self) -> (Stage, [Factor; 3]) {
        let window = &self.timeouts.window;
        let wanted = window.allowed(now());
        let waits = window.waits();
        let raised = self.timeouts.raised;
        let lasts =
            |raised: &Raised| now() < raised.sent + raised.factor.times(self.timeouts.span.lease);
        let lease = raised.filter(lasts).map_or(Factor::ONE, |it| it.factor);
        (stage(wanted, waits, lease), [wanted, waits, lease])
    }

    fn tell_stage(&mut self) {
        let (stage, [_, waits, lease]) = self.stage();
        let before = self.timeouts.told.replace(stage);
        let begins = before.is_none() && stage == Stage::AsConfigured;
        if before == Some(stage) || begins {
            return;
        }
        let (waits, lease) = (waits.to_string(), lease.to_string());
        tracing::info!(code = "LS6198", waits, lease, "timeouts: {stage}");
    }

    /// For the status.
    pub(super) fn timeouts_status(&self) -> cluster::Timeouts {
        let (stage, [_, waits, lease]) = self.stage();
        let window = &self.timeouts.window;
        let word = window.durable().filter(|word| word.raises());
        let ends = window.ends();
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let current = now();
        cluster::Timeouts {
            stage: match stage {
                Stage::AsConfigured => cluster::TimeoutsStage::AsConfigured,
                Stage::Raising => cluster::TimeoutsStage::Raising,
                Stage::Raised => cluster::TimeoutsStage::Raised,
                Stage::Lowering => cluster::TimeoutsStage::Lowering,
            },
            heartbeat_timeout_ms: millis(self.timeouts.span.timeout),
            waits_tenths: waits.tenths(),
            lease_tenths: lease.tenths(),
            peer: self.shared.timeouts.peer().map(|(waits, lease)| {
                let (waits_tenths, lease_tenths) = (waits.tenths(), lease.tenths());
                cluster::PeerTimeouts {
                    waits_tenths,
                    lease_tenths,
                }
            }),
            wanted: word.zip(ends).map(|(word, ends)| cluster::TimeoutsWanted {
                factor_tenths: word.factor.tenths(),
                number: word.number,
                by: self.name_of(word.by),
                since_ms: millis(current.since(ends.since)),
                left_ms: millis(ends.until.since(current)),
            }),
        }
    }
}

fn seconds_of(time: Duration) -> String {
    let (whole, rest) = (time.as_secs(), time.subsec_millis());
    match rest {
        0 => format!("{whole} s"),
        _ => format!("{} s", format!("{whole}.{rest:03}").trim_end_matches('0')),
    }
}

/// A time of whole seconds.
fn time_of(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, 0) => format!("{minutes} min"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, 0, 0) => format!("{hours} h"),
        (hours, minutes, 0) => format!("{hours} h {minutes} min"),
        (hours, minutes, seconds) => format!("{hours} h {minutes} min {seconds} s"),
    }
}
