//! The members of the cluster that the node with the authority asks, and what it lets them do.

use std::sync::Arc;

use controlplane_api::arbiter::Hex16;
use controlplane_api::trust::{MemberTrust, TrustAnswer, TrustAsk};
use controlplane_core::authority::{Elsewhere, Next, Print, Standing, next};
use mirror_core::admin::Problem;

use super::super::words::TrustQuestion;
use super::{Pusher, WITNESS};
use crate::arbiter::ask_trust;
use crate::authority::{certificate, stage, standing_of, told};
use crate::join::frames::printable;
use crate::trust::{Authority, DAY_SECONDS, Named, Signers, ends_at, now};

/// A certificate that ends before is renewed. Its owner is warned much later: when that does not succeed.
const RENEW_DAYS: i64 = 2 * 365;

/// A member as it answered.
struct Member {
    name: String,
    who: Named,
    answer: Result<TrustAnswer, Problem>,
    leads: bool,
}

impl Member {
    fn standing(&self) -> Option<Standing> {
        standing_of(self.answer.as_ref().ok()?)
    }

    fn request(&self) -> Option<&str> {
        self.answer.as_ref().ok()?.request.as_deref()
    }

    fn ends(&self) -> Option<i64> {
        let shown = self.answer.as_ref().ok()?.certificate.as_ref()?;
        ends_at(shown).ok()
    }
}

/// All but this node.
pub(super) struct Members(Vec<Member>);

impl Members {
    /// What is to be done.
    pub(super) fn next(&self, own: Standing, new: Option<Print>) -> Result<Next, Problem> {
        let elsewhere = |place: usize| told::elsewhere(&self.0[place].name);
        let mut others = Vec::new();
        for (place, member) in self.0.iter().enumerate() {
            let standing = member.standing();
            if member.answer.is_ok() && standing.is_none() {
                return Err(elsewhere(place));
            }
            others.push(standing);
        }
        next(own, &others, new).map_err(|Elsewhere(place)| elsewhere(place))
    }

    /// Why a member could not be asked.
    pub(super) fn silent(&self) -> Option<Problem> {
        self.0.iter().find_map(|member| member.answer.clone().err())
    }

    /// Whether a clock is too far from the one here.
    pub(super) fn clocks(&self) -> Option<Problem> {
        self.0.iter().find_map(|member| {
            let there = member.answer.as_ref().ok()?.now?;
            told::apart(&member.name, there, now())
        })
    }

    /// What the witness shows, if the authority signed it.
    pub(super) fn witness(&self) -> Option<String> {
        let witness = self.0.iter().find(|member| member.who == Named::Witness)?;
        witness.answer.as_ref().ok()?.certificate.clone()
    }

    pub(super) fn peer_leads(&self) -> bool {
        self.0.iter().any(|member| member.leads)
    }
}

impl Pusher {
    /// All members but this node, as they stand now.
    pub(super) async fn members(self: &Arc<Self>) -> Members {
        let mut all = vec![
            self.ask_member(Named::Node(self.credentials.peer), TrustAsk::Look)
                .await,
        ];
        if self.witness.is_some() {
            all.push(self.ask_member(Named::Witness, TrustAsk::Look).await);
        }
        Members(all)
    }

    async fn ask_member(self: &Arc<Self>, who: Named, ask: TrustAsk) -> Member {
        let mut leads = false;
        let (name, answer) = match who {
            Named::Node(_) => {
                let said = self.ask_peer(TrustQuestion::Step { ask }).await;
                let said = said.and_then(|said| {
                    leads = said.member.as_ref().is_some_and(|member| member.leads);
                    let unlike = || told::unlike(&self.peer_name);
                    said.answer
                        .ok_or_else(|| said.problem.unwrap_or_else(unlike))
                });
                (self.peer_name.clone(), said)
            }
            Named::Witness => (WITNESS.to_string(), self.ask_witness(ask).await),
        };
        let answer = answer.and_then(|mut answer| match answer.problem.take() {
            None => Ok(answer),
            Some(problem) => Err(printable(problem)),
        });
        Member {
            name,
            who,
            answer,
            leads,
        }
    }

    async fn ask_witness(&self, ask: TrustAsk) -> Result<TrustAnswer, Problem> {
        let address = self.witness.as_deref().unwrap_or_default();
        let answer = ask_trust(address, &self.credentials, ask).await;
        let answer = answer.map_err(|error| told::silent(WITNESS, &error.to_string()))?;
        answer.ok_or_else(|| told::unlike(WITNESS))
    }

    /// A member that is a step behind comes to where this node stands.
    pub(super) async fn move_member(
        self: &Arc<Self>,
        signers: &Signers,
        members: &Members,
        place: usize,
        to: Standing,
    ) -> Result<(), Problem> {
        let member = &members.0[place];
        let Some(from) = member.standing() else {
            return Err(told::elsewhere(&member.name));
        };
        let mut request = member.request().map(str::to_string);
        if matches!(to, Standing::Shows { .. }) && request.is_none() {
            let ready = self.ask_member(member.who, TrustAsk::Prepare).await;
            request = ready.answer?.request;
        }
        let witness = members.witness();
        let named = (self.credentials.subject(member.who)?, request.as_deref());
        let step = self
            .source
            .step(signers, (from, to), named, witness.as_deref())?;
        let step = step.ok_or_else(|| told::elsewhere(&member.name))?;
        let moved = self.ask_member(member.who, step).await;
        if moved.standing() == Some(to) {
            return Ok(());
        }
        Err(moved
            .answer
            .err()
            .unwrap_or_else(|| told::elsewhere(&member.name)))
    }

    /// This node itself goes a step.
    pub(super) async fn go(
        self: &Arc<Self>,
        signers: &Signers,
        (from, to): (Standing, Standing),
        witness: Option<String>,
    ) -> Result<(), Problem> {
        let own = self.credentials.subject(Named::Node(self.me))?;
        let request = match to {
            Standing::Shows { .. } => self.ask_here(TrustAsk::Prepare).await?.request,
            Standing::Settled(_) | Standing::Trusts { .. } => None,
        };
        // It trusts what the witness shows by the authority: that is enough, until the last step.
        let witness = witness.filter(|_| to.is_settled());
        let named = (own, request.as_deref());
        let step = self
            .source
            .step(signers, (from, to), named, witness.as_deref())?;
        let step = step.ok_or_else(|| told::elsewhere(&self.name))?;
        self.ask_here(step).await.map(drop)
    }

    async fn ask_here(self: &Arc<Self>, ask: TrustAsk) -> Result<TrustAnswer, Problem> {
        let answer = self.blocking(move |pusher| pusher.credentials.ask(&ask));
        let mut answer = answer.await?;
        match answer.problem.take() {
            None => Ok(answer),
            Some(problem) => Err(problem),
        }
    }

    /// Another certificate of the present authority, for another key.
    async fn renew(
        self: &Arc<Self>,
        signers: &Signers,
        who: Named,
        witness: Option<String>,
    ) -> Result<(), Problem> {
        let own = self.credentials.live();
        let own = own.map_err(|why| told::files(&self.name, &why))?;
        let missing = || told::files(&self.name, &"the authority's key is not here");
        let authority = signers.of(own.standing.shown()).ok_or_else(missing)?;
        let is_own = who == Named::Node(self.me);
        let prepared = if is_own {
            self.ask_here(TrustAsk::Prepare).await?
        } else {
            self.ask_member(who, TrustAsk::Prepare).await.answer?
        };
        let request = prepared.request.unwrap_or_default();
        let subject = self.credentials.subject(who)?;
        let show = TrustAsk::Show {
            certificate: certificate(authority, subject, &request)?,
            witness,
        };
        if is_own {
            self.ask_here(show).await.map(drop)
        } else {
            self.ask_member(who, show).await.answer.map(drop)
        }
    }

    /// While a change is under way: of this node alone. What it got by a clock that was wrong may have ended for all others, and
    /// nobody would hear it.
    pub(super) async fn renew_own_in_time(
        self: &Arc<Self>,
        signers: &Signers,
        shown: Print,
    ) -> Result<bool, Problem> {
        let own = self.ask_here(TrustAsk::Look).await?.certificate;
        let ends = own.and_then(|shown| ends_at(&shown).ok());
        let authority = signers.of(shown);
        let is_due = authority
            .zip(ends)
            .is_some_and(|(authority, ends)| is_due(authority, ends));
        if is_due {
            self.renew(signers, Named::Node(self.me), None).await?;
        }
        Ok(is_due)
    }

    /// Of all members, this node the last one.
    pub(super) async fn renew_all(
        self: &Arc<Self>,
        signers: &Signers,
        members: &Members,
    ) -> Result<(), Problem> {
        let mut witness = None;
        if self.witness.is_some() {
            self.renew(signers, Named::Witness, None).await?;
            let now = self.ask_member(Named::Witness, TrustAsk::Look).await;
            witness = now.answer?.certificate;
        }
        for member in &members.0 {
            if member.who != Named::Witness {
                self.renew(signers, member.who, witness.clone()).await?;
            }
        }
        self.renew(signers, Named::Node(self.me), witness).await
    }

    /// Of those whose certificate ends soon. Whether there was one.
    pub(super) async fn renew_in_time(
        self: &Arc<Self>,
        signers: &Signers,
        members: &Members,
    ) -> Result<bool, Problem> {
        let [authority] = signers.all() else {
            return Ok(false);
        };
        let own = self.ask_here(TrustAsk::Look).await?;
        let own = own.certificate.and_then(|shown| ends_at(&shown).ok());
        let mut all = vec![(Named::Node(self.me), own)];
        all.extend(members.0.iter().map(|member| (member.who, member.ends())));
        let mut renewed = false;
        for (who, ends) in all {
            if ends.is_some_and(|ends| is_due(authority, ends)) {
                self.renew(signers, who, None).await?;
                renewed = true;
            }
        }
        Ok(renewed)
    }

    /// How all members stand, for people.
    pub(super) async fn show_trust(self: &Arc<Self>) -> Vec<MemberTrust> {
        let unseen = |member: &str, problem| MemberTrust {
            member: member.to_string(),
            leads: false,
            authority: None,
            stage: None,
            certificate_ends: None,
            authority_ends: None,
            problem: Some(problem),
        };
        let own = self.own_line().await;
        let mut all = vec![own.unwrap_or_else(|problem| unseen(&self.name, problem))];
        let peer = self.ask_peer(TrustQuestion::Show).await;
        let peer = peer.and_then(|said| said.member.ok_or_else(|| told::unlike(&self.peer_name)));
        all.push(match peer {
            Ok(member) => MemberTrust {
                member: self.peer_name.clone(),
                problem: member.problem.map(printable),
                ..member
            },
            Err(problem) => unseen(&self.peer_name, problem),
        });
        if self.witness.is_some() {
            let witness = self.ask_member(Named::Witness, TrustAsk::Look).await;
            let (standing, ends) = (witness.standing(), witness.ends());
            all.push(match witness.answer {
                Err(problem) => unseen(WITNESS, problem),
                Ok(answer) => MemberTrust {
                    member: WITNESS.to_string(),
                    leads: false,
                    authority: answer.shown.or(standing.map(|it| Hex16(it.shown().0))),
                    stage: standing.map(stage),
                    certificate_ends: ends,
                    authority_ends: None,
                    problem: standing.is_none().then(|| told::elsewhere(WITNESS)),
                },
            });
        }
        all
    }
}

/// Whether a certificate that ends then is renewed: not where that would not make it longer.
fn is_due(authority: &Authority, ends: i64) -> bool {
    let left = (ends - now()) / DAY_SECONDS;
    let room = ends_at(authority.certificate()).map(|last| (last - ends) / DAY_SECONDS);
    left < RENEW_DAYS && room.is_ok_and(|days| days > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_in_time_and_not_where_that_gains_nothing() {
        let (authority, _) = Authority::create(Hex16([7; 16])).expect("an authority");
        let last = ends_at(authority.certificate()).expect("its end");
        let days = |days: i64| now() + days * DAY_SECONDS;
        assert!(is_due(&authority, days(RENEW_DAYS - 1)));
        assert!(!is_due(&authority, days(RENEW_DAYS + 1)));
        assert!(is_due(&authority, days(-1)));
        assert!(!is_due(&authority, last));
    }
}
