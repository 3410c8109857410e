//! The cluster's key, rotated through the door between the nodes: the first node asks and goes ahead, the other one follows.

use std::sync::Arc;
use std::time::Duration;

use controlplane_api::keys::{
    KeysShow, NodeKeys, Outcome, ROTATE_SCHEMA, RotateAsk, Rotated, SHOW_SCHEMA,
};
use controlplane_core::push::Ask;
use controlplane_core::rotation::Part;
use mirror_core::admin::Problem;
use mirror_core::keys::{Place, Secret};

use super::judge::problem;
use super::operator::ended;
use super::words::{AskFrame, KeysAnswer, KeysAsk, KeysWord, PrintsLine, RotatedLine, SecretLine};
use super::{Handle, LOOK_INTERVAL, Pusher};
use crate::join::frames::printable;
use crate::rotation::{Keyring, unlike};

/// Between two looks at nodes that are as far as each other, in looks of the keeper: 30 s.
const COMPARE_LOOKS: u64 = 60;
/// After the other node could not be asked: 5 s.
const PAUSE_LOOKS: u64 = 10;
/// Whoever asks for a rotation waits no longer: files are flushed, and daemons asked, on both nodes.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is done for a question of the other node: it waits no longer either.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
const SILENT: &str = "LS6251";

/// Beside the conversations: it may wait for a disk, or for a volume's daemon.
async fn beside<T: Send + 'static>(
    keyring: &Arc<Keyring>,
    work: impl FnOnce(&Keyring) -> T + Send + 'static,
) -> Result<T, Problem> {
    let keyring = Arc::clone(keyring);
    let done = tokio::task::spawn_blocking(move || work(&keyring)).await;
    done.map_err(|_| ended())
}

impl Handle {
    /// Rotates the cluster's key. It goes on even if nobody waits for the answer any more.
    ///
    /// # Errors
    /// Why not; nothing was changed then, unless the code is LS6259 or LS6251.
    pub async fn rotate(&self, ask: RotateAsk) -> Result<Rotated, Problem> {
        let pusher = Arc::clone(&self.pusher);
        let rotated = self.runtime.spawn(async move { pusher.rotate(ask).await });
        let rotated = tokio::time::timeout(PATIENCE, rotated).await;
        let (outcome, generation) = match rotated {
            Ok(rotated) => rotated.unwrap_or_else(|_| Err(ended()))?,
            Err(_) => {
                let why = "it did not answer in time".to_string();
                return Err(silent(&self.pusher.peer_name, &why));
            }
        };
        Ok(Rotated {
            schema: ROTATE_SCHEMA.to_string(),
            ok: true,
            outcome,
            generation,
        })
    }

    /// How far both are.
    ///
    /// # Errors
    /// This run ends.
    pub async fn keys(&self) -> Result<KeysShow, Problem> {
        let pusher = Arc::clone(&self.pusher);
        let shown = self.runtime.spawn(async move { pusher.show_keys().await });
        shown.await.unwrap_or_else(|_| Err(ended()))
    }

    /// What an operator should know of the cluster's key.
    pub fn keys_note(&self) -> Option<Problem> {
        self.pusher.keyring.note()
    }
}

pub(super) fn silent(peer: &str, why: &str) -> Problem {
    problem(
        SILENT,
        format!("{peer} cannot be asked about the cluster's key: {why}"),
        format!(
            "see that lockstepd runs on {peer}, and that TCP goes through from the first node at the addresses and ports of \
             the interconnects; what has begun goes on by itself then"
        ),
    )
}

/// The generation that this node is on its way to, or came to since.
fn under_way(place: Place, since: Option<Place>) -> Option<u64> {
    if !place.is_settled() {
        return Some(place.0 / 3 + 1);
    }
    let is_new = since.is_some_and(|since| since >= place);
    (!is_new).then(|| place.generation())
}

impl Pusher {
    /// For ever: what has begun goes on. Beside the keeper of pushes, which waits for no volume's daemon.
    pub(super) async fn keep_keys(self: Arc<Self>) {
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut pause = 0_u64;
        for look in 0_u64.. {
            looks.tick().await;
            pause = pause.saturating_sub(1);
            let is_rare = look % COMPARE_LOOKS == 0;
            let goes_on = pause == 0 && self.key_goes_on(is_rare).await;
            if (goes_on || is_rare) && !self.look_at_the_keys(is_rare).await {
                pause = PAUSE_LOOKS;
            }
        }
    }

    /// Whether this node is not known to be at the end of a rotation. What was not taken by all here is told again.
    async fn key_goes_on(&self, is_rare: bool) -> bool {
        let looked = beside(&self.keyring, move |keyring| {
            let goes_on = keyring.goes_on();
            if keyring.says().is_none() && (goes_on || is_rare) {
                keyring.settle();
            }
            goes_on
        });
        looked.await == Ok(true)
    }

    /// The first node tells the other one. False: not before a while again. Nodes whose keys are too far apart do not hear each
    /// other's heartbeats: that is asked for as well, rarely.
    async fn look_at_the_keys(&self, is_rare: bool) -> bool {
        let is_alive = self.course.is_alive();
        if self.part() == Part::Follows || !is_alive && !is_rare {
            return true;
        }
        if self.a_volume_has_the_port().is_some() {
            return false;
        }
        let Ok(turn) = self.talk.try_lock() else {
            return true;
        };
        let told = self.tell_keys().await;
        drop(turn);
        let Err(problem) = told else {
            return true;
        };
        // The next look tells it. That a node is away, others tell.
        if is_alive || problem.code != SILENT {
            let _ = beside(&self.keyring, |keyring| keyring.unheard(problem)).await;
        }
        false
    }

    fn part(&self) -> Part {
        Part::of(self.me)
    }

    /// Tells the other node how far this one is, and hears how far that one came.
    async fn tell_keys(&self) -> Result<(), Problem> {
        let answer = self.ask_keys(KeysWord::Look).await?;
        let heard = self.hear_keys(answer.prints, None).await;
        if let Some(problem) = answer.problem {
            return Err(printable(problem));
        }
        heard
    }

    async fn hear_keys(
        &self,
        prints: Option<PrintsLine>,
        new: Option<SecretLine>,
    ) -> Result<(), Problem> {
        let Some(prints) = prints.map(PrintsLine::read) else {
            return Ok(());
        };
        let new = new.map(|line| line.0);
        let heard = beside(&self.keyring, move |keyring| keyring.hear(prints, new));
        heard.await?
    }

    async fn ask_keys(&self, word: KeysWord) -> Result<KeysAnswer, Problem> {
        let said = self.keyring_says().await?;
        let frame = AskFrame {
            keys: Some(KeysAsk {
                word,
                prints: said.as_ref().map(|(prints, _)| *prints),
                new: said.and_then(|(_, new)| new),
            }),
            ..AskFrame::new(&Ask::State)
        };
        let answer = self.exchange(&frame).await;
        let (_, answer) = answer.map_err(|error| silent(&self.peer_name, &error.message))?;
        answer.keys.ok_or_else(|| unlike(&self.peer_name))
    }

    async fn keyring_says(&self) -> Result<Option<(PrintsLine, Option<SecretLine>)>, Problem> {
        let said = beside(&self.keyring, Keyring::says).await?;
        Ok(said.map(|(prints, new)| (PrintsLine::from(prints), new.map(SecretLine))))
    }

    /// The other node asks about keys. What a volume's daemon delays keeps no place at the door.
    pub(super) async fn answer_keys(&self, ask: KeysAsk) -> Result<KeysAnswer, Problem> {
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, self.answer_in_time(ask)).await;
        answer.unwrap_or_else(|_| Err(silent(&self.name, "it took too long")))
    }

    async fn answer_in_time(&self, ask: KeysAsk) -> Result<KeysAnswer, Problem> {
        let mut answer = KeysAnswer::default();
        match ask.word {
            KeysWord::Look => {
                answer.problem = self.hear_keys(ask.prints, ask.new).await.err();
            }
            KeysWord::Ready => {
                answer.problem = beside(&self.keyring, Keyring::ready).await?.err();
            }
            KeysWord::TryOut | KeysWord::Rotate => {
                let dry_run = ask.word == KeysWord::TryOut;
                let since = ask.prints.map(|prints| prints.read().place);
                match self.rotate_here(RotateAsk { dry_run }, since).await {
                    Ok(rotated) => answer.rotated = Some(RotatedLine::from(rotated)),
                    Err(problem) => answer.problem = Some(problem),
                }
            }
        }
        answer.prints = self.keyring_says().await?.map(|(prints, _)| prints);
        answer.node = Some(beside(&self.keyring, Keyring::line).await?);
        Ok(answer)
    }

    /// Whichever node is asked, the first one begins.
    async fn rotate(&self, ask: RotateAsk) -> Result<(Outcome, u64), Problem> {
        match self.part() {
            Part::Leads => {
                let place = beside(&self.keyring, Keyring::place).await?;
                self.rotate_here(ask, Some(place)).await
            }
            Part::Follows => {
                // It says how far it is: see `since` there.
                beside(&self.keyring, Keyring::ready).await??;
                let word = if ask.dry_run {
                    KeysWord::TryOut
                } else {
                    KeysWord::Rotate
                };
                // Its answer comes through the door, not through this conversation.
                let answer = self.ask_keys(word).await?;
                match (answer.rotated, answer.problem) {
                    (Some(rotated), _) => Ok(rotated.read()),
                    (None, Some(problem)) => Err(printable(problem)),
                    (None, None) => Err(unlike(&self.peer_name)),
                }
            }
        }
    }

    /// `since`: how far the node was where somebody wished for it, if it stood anywhere. One wish is one rotation, however often
    /// the question comes.
    async fn rotate_here(
        &self,
        ask: RotateAsk,
        since: Option<Place>,
    ) -> Result<(Outcome, u64), Problem> {
        if let Some(volume) = self.a_volume_has_the_port() {
            let why =
                format!("the mirror link of volume {volume} has the port where it would be asked");
            return Err(silent(&self.peer_name, &why));
        }
        let turn = self.talk.lock().await;
        let place = beside(&self.keyring, Keyring::place).await?;
        // It goes on, also where the other node cannot be asked just now.
        if let Some(generation) = under_way(place, since) {
            return Ok((Outcome::UnderWay, generation));
        }
        beside(&self.keyring, Keyring::ready).await??;
        let answer = self.ask_keys(KeysWord::Ready).await?;
        if let Some(problem) = answer.problem {
            return Err(printable(problem));
        }
        self.tell_keys().await?;
        let is_idle = beside(&self.keyring, Keyring::is_idle).await?;
        if !is_idle {
            // The other node takes the last step, or something is in the way here.
            let under_way = Ok((Outcome::UnderWay, place.generation()));
            return self.keyring.note().map_or(under_way, Err);
        }
        if ask.dry_run {
            return Ok((Outcome::Possible, place.generation() + 1));
        }
        let secret: [u8; 32] = crate::join::random().map_err(|error| {
            problem(
                "LS6259",
                error.to_string(),
                "see that /dev/urandom is there",
            )
        })?;
        let begun = beside(&self.keyring, move |keyring| {
            keyring.rotate(Secret::new(secret))
        });
        let generation = begun.await??;
        drop(turn);
        Ok((Outcome::Begun, generation))
    }

    async fn show_keys(&self) -> Result<KeysShow, Problem> {
        let own = beside(&self.keyring, Keyring::line).await?;
        // It says nothing of itself: a question moves nobody.
        let frame = AskFrame {
            keys: Some(KeysAsk::default()),
            ..AskFrame::new(&Ask::State)
        };
        let answer = self.exchange(&frame).await;
        let answer = answer.map_err(|error| silent(&self.peer_name, &error.message));
        let peer = answer.and_then(|(_, answer)| {
            let node = answer.keys.and_then(|keys| keys.node);
            let node = node.ok_or_else(|| unlike(&self.peer_name))?;
            Ok(NodeKeys {
                node: self.peer_name.clone(),
                problem: node.problem.map(printable),
                ..node
            })
        });
        let (peer, peer_problem) = match peer {
            Ok(node) => (Some(node), None),
            Err(problem) => (None, Some(problem)),
        };
        Ok(KeysShow {
            schema: SHOW_SCHEMA.to_string(),
            ok: true,
            own,
            peer_name: self.peer_name.clone(),
            peer,
            peer_problem,
        })
    }

    pub(super) fn a_volume_has_the_port(&self) -> Option<String> {
        let mut locals = self.interconnects.iter().map(|pair| pair.local);
        locals.find_map(|local| self.needs(local))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_that_comes_once_more_begins_nothing_more() {
        let wish = Some(Place(3));
        assert_eq!(under_way(Place(3), wish), None);
        for (place, generation) in [(4, 2), (5, 2), (6, 2), (9, 3)] {
            assert_eq!(under_way(Place(place), wish), Some(generation));
        }
        assert_eq!(under_way(Place(3), None), Some(1));
    }
}
