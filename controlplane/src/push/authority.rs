//! The cluster's authority and its certificates, through the door between the nodes and at the witness: the node with the authority's
//! key asks and goes ahead, the others follow.

use std::sync::Arc;
use std::time::Duration;

use controlplane_api::arbiter::Hex16;
use controlplane_api::trust::{
    DONE_SCHEMA, MemberTrust, SHOW_SCHEMA, TrustDone, TrustOutcome, TrustShow, TrustWish,
};
use controlplane_core::authority::{Next, Print, Standing};
use mirror_core::admin::Problem;

use super::operator::ended;
use super::words::{AskFrame, DoneLine, TrustQuestion, TrustSaid, TrustVerb};
use super::{Handle, LOOK_INTERVAL, Pusher};
use crate::authority::{Source, told};
use crate::join::frames::printable;
use crate::trust::Signers;

mod members;

/// Between two looks at members that stand where this node stands.
const COMPARE_INTERVAL: Duration = Duration::from_secs(300);
/// After a member could not be asked.
const PAUSE: Duration = Duration::from_secs(5);
/// Whoever wishes for something waits no longer.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is done for a question of the other node.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
pub(super) const WITNESS: &str = "witness";

impl Handle {
    /// Gives the cluster another authority. It goes on even if nobody waits for the answer any more.
    ///
    /// # Errors
    /// Why not.
    pub async fn rotate_authority(&self, wish: TrustWish) -> Result<TrustDone, Problem> {
        self.wish(TrustVerb::Rotate, wish).await
    }

    /// Gives all members other certificates.
    ///
    /// # Errors
    /// Why not; those before the one that is named have them.
    pub async fn renew_certificates(&self, wish: TrustWish) -> Result<TrustDone, Problem> {
        self.wish(TrustVerb::Renew, wish).await
    }

    async fn wish(&self, verb: TrustVerb, wish: TrustWish) -> Result<TrustDone, Problem> {
        let pusher = Arc::clone(&self.pusher);
        let wished = self
            .runtime
            .spawn(async move { pusher.wish_trust(verb, wish).await });
        let wished = tokio::time::timeout(PATIENCE, wished).await;
        let done = match wished {
            Ok(done) => done.unwrap_or_else(|_| Err(ended()))?,
            Err(_) => {
                let why = "it did not answer in time";
                return Err(told::silent(&self.pusher.peer_name, why));
            }
        };
        Ok(TrustDone {
            schema: DONE_SCHEMA.to_string(),
            ok: true,
            outcome: done.outcome,
            authority: done.authority,
        })
    }

    /// How all members stand.
    ///
    /// # Errors
    /// This run ends.
    pub async fn trust(&self) -> Result<TrustShow, Problem> {
        let pusher = Arc::clone(&self.pusher);
        let shown = self.runtime.spawn(async move { pusher.show_trust().await });
        let members = shown.await.map_err(|_| ended())?;
        Ok(TrustShow {
            schema: SHOW_SCHEMA.to_string(),
            ok: true,
            members,
        })
    }

    /// What an operator should know of certificates.
    pub fn trust_note(&self) -> Option<Problem> {
        self.pusher.credentials.note()
    }
}

/// What a look at all members came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Looked {
    /// All stand where this node stands, and nothing is under way; or another node leads.
    Idle,
    /// A step was taken.
    Stepped,
    /// A member could not be asked, or a disk refuses: not before a while again.
    Held,
}

impl Pusher {
    /// Beside the conversations: it waits for a disk.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let pusher = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || work(&pusher)).await;
        done.map_err(|_| ended())
    }

    /// For ever: what has begun goes on, and certificates are renewed before they end.
    pub(super) async fn keep_trust(self: Arc<Self>) {
        loop {
            let pause = match self.look_at_trust().await {
                Looked::Stepped => LOOK_INTERVAL,
                Looked::Held => PAUSE,
                Looked::Idle => COMPARE_INTERVAL,
            };
            // Somebody's wish does not wait for the next look.
            let _ = tokio::time::timeout(pause, self.trust_wished.notified()).await;
        }
    }

    async fn look_at_trust(self: &Arc<Self>) -> Looked {
        // What somebody put in place counts, on a node that does not lead as well.
        let looked = self.blocking(|pusher| pusher.credentials.look().map(drop));
        if !matches!(looked.await, Ok(Ok(()))) {
            return Looked::Held;
        }
        let turn = self.talk.lock().await;
        let stepped = self.step_trust().await;
        drop(turn);
        let stuck = stepped.as_ref().err().cloned();
        let told = self.blocking(move |pusher| pusher.credentials.tell(stuck.as_ref()));
        let _ = told.await;
        stepped.unwrap_or(Looked::Held)
    }

    /// Who signs here, and where this node stands; `None`: another node leads.
    async fn leading(
        self: &Arc<Self>,
    ) -> Result<Option<(Signers, Standing, Option<Print>)>, Problem> {
        let leading = self.blocking(|pusher| {
            let Some(signers) = pusher.source.signers()? else {
                return Ok(None);
            };
            let own = pusher.credentials.look()?.standing;
            let new = pusher.source.next(&signers, own)?;
            Ok(Some((signers, own, new)))
        });
        leading.await?
    }

    /// One step, of this node or of those who are a step behind.
    async fn step_trust(self: &Arc<Self>) -> Result<Looked, Problem> {
        let Some((signers, own, new)) = self.leading().await? else {
            return Ok(Looked::Idle);
        };
        let is_ending = Source::is_ending(&signers, own);
        let is_quiet = own.is_settled() && new.is_none() && !is_ending;
        // In the quiet that is done for all members.
        if !is_quiet && self.renew_own_in_time(&signers, own.shown()).await? {
            return Ok(Looked::Stepped);
        }
        if !self.course.is_alive() {
            let silent = told::silent(&self.peer_name, "its heartbeats are not heard");
            return if is_quiet {
                Ok(Looked::Held)
            } else {
                Err(silent)
            };
        }
        let members = self.members().await;
        match members.next(own, new)? {
            // Whoever is away may not have gone the last step.
            Next::Idle if is_ending => match members.silent() {
                Some(problem) => Err(problem),
                None => {
                    let over = self.blocking(move |pusher| pusher.source.finish(&signers));
                    over.await?.map(|()| Looked::Stepped)
                }
            },
            Next::Idle => {
                // Nothing is under way: who is away is nobody's concern here.
                let renewed = self.renew_in_time(&signers, &members).await?;
                Ok(if renewed {
                    Looked::Stepped
                } else {
                    Looked::Idle
                })
            }
            Next::Await(_) => {
                let silent = members.silent();
                Err(silent.unwrap_or_else(|| told::silent(&self.peer_name, "it says nothing")))
            }
            Next::Move(places) => {
                let mut failed = None;
                for place in places {
                    let moved = self.move_member(&signers, &members, place, own).await;
                    failed = failed.or(moved.err());
                }
                // A member that is away is told beside those that go on.
                match failed.or_else(|| members.silent()) {
                    None => Ok(Looked::Stepped),
                    Some(problem) => Err(problem),
                }
            }
            Next::Go(to) => {
                self.go(&signers, (own, to), members.witness()).await?;
                Ok(Looked::Stepped)
            }
        }
    }

    /// What an operator wishes, on whichever node it is typed.
    async fn wish_trust(
        self: &Arc<Self>,
        verb: TrustVerb,
        wish: TrustWish,
    ) -> Result<DoneLine, Problem> {
        let shown = |pusher: &Self| {
            let live = pusher.credentials.live().ok()?;
            Some(Hex16(live.standing.shown().0))
        };
        if self
            .blocking(|pusher| pusher.source.signers())
            .await??
            .is_some()
        {
            return self.wish_here(verb, wish, shown(self)).await;
        }
        let question = TrustQuestion::Wish {
            verb,
            dry_run: wish.dry_run,
            since: shown(self),
        };
        let said = self.ask_peer(question).await?;
        match (said.done, said.problem) {
            (Some(done), _) => Ok(done),
            (None, Some(problem)) => Err(printable(problem)),
            (None, None) => Err(told::unlike(&self.peer_name)),
        }
    }

    async fn wish_here(
        self: &Arc<Self>,
        verb: TrustVerb,
        wish: TrustWish,
        since: Option<Hex16>,
    ) -> Result<DoneLine, Problem> {
        let turn = self.talk.lock().await;
        let Some((signers, own, new)) = self.leading().await? else {
            return Err(told::no_authority(&self.name, &self.peer_name));
        };
        let under_way = |print: Print| DoneLine {
            outcome: TrustOutcome::UnderWay,
            authority: Some(Hex16(print.0)),
        };
        if let Some(next) = new.or(own.next()) {
            return match verb {
                TrustVerb::Rotate => Ok(under_way(next)),
                TrustVerb::Renew => Err(told::renew_waits()),
            };
        }
        if Source::is_ending(&signers, own) {
            return match verb {
                TrustVerb::Rotate => Ok(under_way(own.shown())),
                TrustVerb::Renew => Err(told::renew_waits()),
            };
        }
        if verb == TrustVerb::Rotate && since.is_some_and(|since| since.0 != own.shown().0) {
            // The wish was carried out already.
            return Ok(under_way(own.shown()));
        }
        let members = self.members().await;
        if members.peer_leads() {
            return Err(told::two_authorities(&self.name, &self.peer_name));
        }
        if let Next::Move(_) = members.next(own, None)? {
            // The last step of the others.
            return match verb {
                TrustVerb::Rotate => Ok(under_way(own.shown())),
                TrustVerb::Renew => Err(told::renew_waits()),
            };
        }
        if let Some(problem) = members.silent().or_else(|| members.clocks()) {
            return Err(problem);
        }
        let done = |outcome, authority: Option<Print>| DoneLine {
            outcome,
            authority: authority.map(|print| Hex16(print.0)),
        };
        if wish.dry_run {
            return Ok(done(TrustOutcome::Possible, None));
        }
        let done = match verb {
            TrustVerb::Rotate => {
                let begun = self.blocking(move |pusher| pusher.source.begin(&signers));
                done(TrustOutcome::Begun, Some(begun.await??))
            }
            TrustVerb::Renew => {
                self.renew_all(&signers, &members).await?;
                done(TrustOutcome::Renewed, None)
            }
        };
        drop(turn);
        self.trust_wished.notify_one();
        Ok(done)
    }

    /// The other node asks. What a disk delays keeps no place at the door.
    pub(super) async fn answer_trust(self: &Arc<Self>, question: TrustQuestion) -> TrustSaid {
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, self.answer_question(question)).await;
        let answer = answer.unwrap_or_else(|_| Err(told::silent(&self.name, "it took too long")));
        answer.unwrap_or_else(|problem| TrustSaid {
            problem: Some(problem),
            ..TrustSaid::default()
        })
    }

    async fn answer_question(
        self: &Arc<Self>,
        question: TrustQuestion,
    ) -> Result<TrustSaid, Problem> {
        let mut said = TrustSaid::default();
        match question {
            TrustQuestion::Step { ask } => {
                let answer = self.blocking(move |pusher| pusher.credentials.ask(&ask));
                said.answer = Some(answer.await?);
                said.member = Some(self.own_line().await?);
            }
            TrustQuestion::Show => said.member = Some(self.own_line().await?),
            TrustQuestion::Wish {
                verb,
                dry_run,
                since,
            } => {
                let has_authority = self.blocking(|pusher| pusher.source.signers());
                if has_authority.await??.is_none() {
                    return Err(told::no_authority(&self.name, &self.peer_name));
                }
                said.done = Some(self.wish_here(verb, TrustWish { dry_run }, since).await?);
            }
        }
        Ok(said)
    }

    async fn own_line(self: &Arc<Self>) -> Result<MemberTrust, Problem> {
        let line = self.blocking(|pusher| {
            let leads = matches!(pusher.source.signers(), Ok(Some(_)));
            let line = pusher.credentials.line();
            MemberTrust { leads, ..line }
        });
        line.await
    }

    async fn ask_peer(&self, question: TrustQuestion) -> Result<TrustSaid, Problem> {
        if let Some(volume) = self.a_volume_has_the_port() {
            let why =
                format!("the mirror link of volume {volume} has the port where it would be asked");
            return Err(told::silent(&self.peer_name, &why));
        }
        let frame = AskFrame {
            trust: Some(question),
            ..AskFrame::new(&controlplane_core::push::Ask::State)
        };
        let answer = self.exchange(&frame).await;
        let (_, answer) = answer.map_err(|error| told::silent(&self.peer_name, &error.message))?;
        answer.trust.ok_or_else(|| told::unlike(&self.peer_name))
    }
}
