//! What is said of pushes between the nodes, and written down, as JSON.

use controlplane_api::arbiter::Hex16;
use controlplane_api::config::NodeConfig;
use controlplane_api::events::{Page, Query};
use controlplane_core::push::{
    Ask, Digest, Durable, InForce, Proposal, PushId, Running, Stage, State, Times, Why,
};
use mirror_core::admin::Problem;
use mirror_core::types::NodeId;
use serde::{Deserialize, Serialize};

mod authority;
mod keys;

pub(super) use authority::{DoneLine, TrustQuestion, TrustSaid, TrustVerb};
pub(super) use keys::{KeysAnswer, KeysAsk, KeysWord, PrintsLine, RotatedLine, SecretLine};

/// Of what is said here. A node of another version is not understood, and nothing is pushed.
pub(super) const VERSION: u32 = 1;
/// Two files, which JSON may lengthen, and the rest.
pub(super) const FRAME_BYTES_MAX: usize = 2 * 1024 * 1024;

/// The digest of a file.
pub fn digest(bytes: &[u8]) -> Digest {
    Digest(*blake3::hash(bytes).as_bytes())
}

/// As people and JSON have it: 64 digits.
pub fn hex(digest: &Digest) -> String {
    blake3::Hash::from_bytes(digest.0).to_hex().to_string()
}

/// Its first digits, for a sentence.
pub(super) fn short(digest: &Digest) -> String {
    hex(digest).chars().take(12).collect()
}

fn digest_of(text: &str) -> Option<Digest> {
    let hash = blake3::Hash::from_hex(text).ok()?;
    Some(Digest(*hash.as_bytes()))
}

/// A [`Proposal`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ProposalLine {
    id: Hex16,
    by: u8,
    number: u64,
    digest: String,
    replaces: [String; 2],
    /// Whether times that both count with change.
    times_differ: bool,
}

impl From<&Proposal> for ProposalLine {
    fn from(proposal: &Proposal) -> Self {
        Self {
            id: Hex16(proposal.id.0),
            by: proposal.by.number(),
            number: proposal.number,
            digest: hex(&proposal.digest),
            replaces: proposal.replaces.each_ref().map(hex),
            times_differ: proposal.times == Times::Differ,
        }
    }
}

impl ProposalLine {
    pub(super) fn read(&self) -> Option<Proposal> {
        let [one, other] = self.replaces.each_ref().map(|text| digest_of(text));
        Some(Proposal {
            id: PushId(self.id.0),
            by: NodeId::new(self.by)?,
            number: self.number,
            digest: digest_of(&self.digest)?,
            replaces: [one?, other?],
            times: if self.times_differ {
                Times::Differ
            } else {
                Times::Same
            },
        })
    }
}

/// A [`Stage`].
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum StageWord {
    Promised,
    Decided,
}

impl From<Stage> for StageWord {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::Promised => Self::Promised,
            Stage::Decided => Self::Decided,
        }
    }
}

impl From<StageWord> for Stage {
    fn from(word: StageWord) -> Self {
        match word {
            StageWord::Promised => Self::Promised,
            StageWord::Decided => Self::Decided,
        }
    }
}

/// A [`State`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct StateLine {
    number: u64,
    in_force: String,
    pending: Option<(ProposalLine, StageWord)>,
    runs: String,
    between: Option<Hex16>,
    /// It came up with it.
    settled: bool,
    driving: Option<Hex16>,
}

impl From<&State> for StateLine {
    fn from(state: &State) -> Self {
        let pending = state.durable.pending.as_ref();
        Self {
            number: state.durable.in_force.number,
            in_force: hex(&state.durable.in_force.digest),
            pending: pending.map(|(proposal, stage)| (proposal.into(), (*stage).into())),
            runs: hex(&state.running.file),
            between: state.running.between.map(|id| Hex16(id.0)),
            settled: state.running.settled,
            driving: state.driving.map(|id| Hex16(id.0)),
        }
    }
}

impl StateLine {
    pub(super) fn read(&self) -> Option<State> {
        let pending = match &self.pending {
            None => None,
            Some((proposal, stage)) => Some((proposal.read()?, (*stage).into())),
        };
        Some(State {
            durable: Durable {
                in_force: InForce {
                    number: self.number,
                    digest: digest_of(&self.in_force)?,
                },
                // Of no concern to anybody else.
                pinned: true,
                pending,
            },
            running: Running {
                file: digest_of(&self.runs)?,
                between: self.between.map(|id| PushId(id.0)),
                settled: self.settled,
            },
            driving: self.driving.map(|id| PushId(id.0)),
        })
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum AskWord {
    /// How it stands; with a file: whether that one would do.
    State,
    Promise,
    CarryOut,
}

/// One node asks the other one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct AskFrame {
    pub(super) version: u32,
    pub(super) ask: AskWord,
    #[serde(default)]
    pub(super) proposal: Option<ProposalLine>,
    /// The new file.
    #[serde(default)]
    pub(super) text: Option<String>,
    /// `cluster.toml` there, as it was when the push began: it is promised only if it still is so.
    #[serde(default)]
    pub(super) file: Option<String>,
    /// How the one who asks stands, if something is to be carried out: whoever is asked may not be able to ask.
    #[serde(default)]
    pub(super) state: Option<StateLine>,
    /// What happened there is asked for as well. A node of an earlier release does not see that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) events: Option<Query>,
    /// A question about the cluster's key. The same holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) keys: Option<KeysAsk>,
    /// A question about the cluster's authority. The same holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) trust: Option<TrustQuestion>,
}

impl AskFrame {
    pub(super) fn new(ask: &Ask) -> Self {
        let (ask, proposal) = match ask {
            Ask::State => (AskWord::State, None),
            Ask::Promise(proposal) => (AskWord::Promise, Some(proposal)),
            Ask::CarryOut(proposal) => (AskWord::CarryOut, Some(proposal)),
        };
        Self {
            version: VERSION,
            ask,
            proposal: proposal.map(ProposalLine::from),
            text: None,
            file: None,
            state: None,
            events: None,
            keys: None,
            trust: None,
        }
    }

    pub(super) fn read(&self) -> Option<Ask> {
        let proposal = || self.proposal.as_ref()?.read();
        Some(match self.ask {
            AskWord::State => Ask::State,
            AskWord::Promise => Ask::Promise(proposal()?),
            AskWord::CarryOut => Ask::CarryOut(proposal()?),
        })
    }
}

/// A [`Why`] of the node that is asked.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum WhyWord {
    Busy,
    Moved,
    Unfit,
    NotKept,
}

impl From<Why> for WhyWord {
    fn from(why: Why) -> Self {
        match why {
            Why::Moved => Self::Moved,
            Why::Unfit => Self::Unfit,
            Why::NotKept => Self::NotKept,
            Why::Busy | Why::Overtaken | Why::Silent | Why::Abandoned | Why::NotPinned => {
                Self::Busy
            }
        }
    }
}

impl From<WhyWord> for Why {
    fn from(word: WhyWord) -> Self {
        match word {
            WhyWord::Busy => Self::Busy,
            WhyWord::Moved => Self::Moved,
            WhyWord::Unfit => Self::Unfit,
            WhyWord::NotKept => Self::NotKept,
        }
    }
}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct AnswerFrame {
    pub(super) version: u32,
    pub(super) state: StateLine,
    /// The same for people, and `cluster.toml`.
    pub(super) node: NodeConfig,
    #[serde(default)]
    pub(super) why: Option<WhyWord>,
    /// The same in words.
    #[serde(default)]
    pub(super) problem: Option<Problem>,
    /// Whether the file that was asked about has other times, of those that both nodes count with, than what is in force
    /// there.
    #[serde(default)]
    pub(super) times_differ: bool,
    /// What that node finds worth a second look in the file.
    #[serde(default)]
    pub(super) warnings: Vec<String>,
    /// What happened there, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) events: Option<Page>,
    /// The answer about keys, if one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) keys: Option<KeysAnswer>,
    /// The answer about the authority, if one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) trust: Option<TrustSaid>,
}
