//! What a keeper says to data planes, and the views that it claims for them.

use alloc::vec::Vec;

use mirror_core::types::{Instant, ViewId, VolumeId};
use mirror_core::view::ViewMark;

use super::why::Hold;
use super::{ArbiterKind, Effect, Keeper, Volume, VolumeFacts, WORD_LIFE, Word};
use crate::mutant::{self, Mutant};
use crate::partition::{Decision, Standing};
use crate::register::Claim;

impl Keeper {
    /// A new view for each volume that stands so.
    pub(super) fn claims(&mut self, standings: &[Standing]) -> Vec<Claim> {
        let mut claims = Vec::new();
        for (id, volume) in &self.volumes {
            let Some(facts) = volume
                .facts
                .filter(|facts| standings.contains(&facts.standing))
            else {
                continue;
            };
            let next = ViewMark {
                epoch: facts.next_epoch.max(facts.view.epoch.next()),
                id: ViewId(self.entropy.bytes16()),
            };
            claims.push(Claim {
                volume: *id,
                basis: facts.view,
                next,
                history: facts.history,
            });
        }
        claims
    }

    pub(super) fn act_alone(
        &mut self,
        now: Instant,
        decision: Decision,
        effects: &mut Vec<Effect>,
    ) {
        let alone = decision == Decision::GoAlone;
        let standings = claimed(alone);
        let unasked =
            mutant::is(Mutant::TakeoverWithoutClaim) || mutant::is(Mutant::GoAloneWithoutClaim);
        let asks = self.kind == ArbiterKind::Register && !unasked;
        let granted: Vec<(Claim, ViewMark)> = if asks {
            let granted = self.change.granted();
            granted.map(|(claim, mark)| (*claim, mark)).collect()
        } else {
            let claims = self.claims(standings);
            claims.iter().map(|claim| (*claim, claim.next)).collect()
        };
        for (claim, next) in granted {
            let (basis, until) = (claim.basis, now + WORD_LIFE);
            let word = if alone {
                Word::GoAlone { basis, next, until }
            } else {
                Word::TakeOver { basis, next, until }
            };
            let stands = |volume: &Volume| {
                volume
                    .facts
                    .is_some_and(|facts| standings.contains(&facts.standing))
            };
            if self.volumes.get(&claim.volume).is_some_and(stands) {
                self.say(now, claim.volume, word, effects);
            }
        }
        if !alone {
            self.say_to(now, Standing::Alone, Word::Start, effects);
        }
    }

    pub(super) fn step_down(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        for standing in [Standing::Broken, Standing::Frozen, Standing::Serving] {
            self.say_to(now, standing, Word::StepDown, effects);
        }
    }

    pub(super) fn begin(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        for standing in [Standing::Alone, Standing::Unserved] {
            self.say_to(now, standing, Word::Start, effects);
        }
    }

    pub(super) fn say_to(
        &mut self,
        now: Instant,
        standing: Standing,
        word: Word,
        effects: &mut Vec<Effect>,
    ) {
        let stands = |(_, facts): &(&VolumeId, Option<VolumeFacts>)| {
            facts.is_some_and(|facts| facts.standing == standing)
        };
        let volumes: Vec<VolumeId> = self.facts().filter(stands).map(|(id, _)| *id).collect();
        for volume in volumes {
            self.say(now, volume, word, effects);
        }
    }

    pub(super) fn say(
        &mut self,
        now: Instant,
        volume: VolumeId,
        word: Word,
        effects: &mut Vec<Effect>,
    ) {
        let ping = self.kind == ArbiterKind::Ping;
        let in_time = !self.lease.is_over(now);
        let record = &mut self.record;
        let Some(place) = self.volumes.get_mut(&volume) else {
            return;
        };
        let changing = place.facts.is_some_and(|facts| facts.changing);
        let ready = !changing || word == Word::StepDown;
        if !place.told && ready && now >= place.rests_until {
            place.told = true;
            place.narrows = matches!(word, Word::GoAlone { .. }) && ping && in_time;
            effects.push(Effect::Say { volume, word });
            self.remember_the_deed();
        } else if place.told || !ready {
            record.hold(Hold::Busy);
        } else {
            record.hold(Hold::Refused(place.rests_until));
        }
    }
}

/// The volumes for which a serving node claims, or one that does not serve.
pub(super) fn claimed(serving: bool) -> &'static [Standing] {
    if serving {
        &[Standing::Frozen]
    } else {
        &[Standing::Standby, Standing::Unserved]
    }
}
