//! What is said of pushes, between the nodes and with the shell.

use core::fmt;

use mirror_core::types::NodeId;

/// BLAKE3 of a file's bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([a, b, c, d, ..]) = self;
        write!(f, "{a:02x}{b:02x}{c:02x}{d:02x}")
    }
}

/// Names one push: random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PushId(pub [u8; 16]);

/// Whether the old and the new file have the same times of those that both nodes count with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Times {
    /// They have: going by the old file is as good as going between both.
    Same,
    /// They have not.
    Differ,
}

/// What shall be in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Proposal {
    /// This push.
    pub id: PushId,
    /// Who drives it.
    pub by: NodeId,
    /// Above the number of what is in force on either node.
    pub number: u64,
    /// The new file.
    pub digest: Digest,
    /// What it replaces on each node, by the nodes' numbers: nothing else.
    pub replaces: [Digest; 2],
    /// See [`Times`].
    pub times: Times,
}

/// The file that a node goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InForce {
    /// Of its push; 0: none, it is what `cluster.toml` said when this run began.
    pub number: u64,
    /// The file.
    pub digest: Digest,
}

/// How far a push is on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// It will be carried out if the driver decides so.
    Promised,
    /// It will be carried out.
    Decided,
}

/// What a node keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Durable {
    /// The file in force.
    pub in_force: InForce,
    /// It was kept, when the first push began here: from then on it counts, whatever `cluster.toml` says.
    pub pinned: bool,
    /// A push that is not in force yet.
    pub pending: Option<(Proposal, Stage)>,
}

/// What a run loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// What `cluster.toml` says: no push ever began.
    File,
    /// The file in force.
    InForce,
    /// The same, with times between it and the decided one.
    Between,
}

impl Durable {
    /// What a run that begins now loads.
    #[must_use]
    pub fn load(&self) -> Load {
        match self.pending {
            Some((_, Stage::Decided)) => Load::Between,
            Some((_, Stage::Promised)) => Load::InForce,
            None if self.pinned => Load::InForce,
            None => Load::File,
        }
    }

    pub(super) fn decided(&self, id: PushId) -> bool {
        matches!(self.pending, Some((pending, Stage::Decided)) if pending.id == id)
    }

    pub(super) fn is_in_force(&self, proposal: &Proposal) -> bool {
        let InForce { number, digest } = self.in_force;
        (number, digest) == (proposal.number, proposal.digest)
    }
}

/// What this run loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Running {
    /// The file.
    pub file: Digest,
    /// It goes by times that are safe beside the file before and after this push.
    pub between: Option<PushId>,
    /// It decides about volumes, and heard the other node, for some seconds: it came up with what it loaded.
    pub settled: bool,
}

/// All that one node tells the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct State {
    /// What is durable there.
    pub durable: Durable,
    /// What runs there.
    pub running: Running,
    /// The push that it drives and has not decided.
    pub driving: Option<PushId>,
}

/// What one node asks the other one. The answer is its [`State`] afterwards, or why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ask {
    /// Only how it stands.
    State,
    /// To promise.
    Promise(Proposal),
    /// To carry out what is decided.
    CarryOut(Proposal),
}

/// Why a node does not do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// Another push is under way.
    Busy,
    /// Somebody at the other node pushes at the same time, and that one goes first.
    Overtaken,
    /// Something else is in force than what the push replaces.
    Moved,
    /// The file does not do on that node, or its `cluster.toml` was changed by hand.
    Unfit,
    /// It cannot be kept.
    NotKept,
    /// What is in force cannot be kept: no push begins.
    NotPinned,
    /// The other node does not answer.
    Silent,
    /// An operator took it back.
    Abandoned,
}

/// What the shell found when it looked at the file and at `cluster.toml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fit {
    /// It will do.
    Fits,
    /// It will not.
    Unfit,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// An operator wants this; the shell looked at both nodes.
    Begin(Proposal),
    /// The other node asks.
    Asked(Ask, Fit),
    /// The other node, which carries out what it decided, tells how it stands beside its question.
    Heard(State),
    /// The other node answered the question of this number. [`Fit`] is of `cluster.toml` here, for what is driven here.
    Answered(u64, State, Option<Why>, Fit),
    /// It did not.
    Unanswered(u64),
    /// This run came up: see [`Running::settled`].
    Settled,
    /// What was to be saved is durable.
    Saved,
    /// It may be, or not.
    NotSaved,
    /// An operator takes back what is not decided.
    Abandon,
    /// Time passed.
    Tick,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Ask the other node, then report the answer.
    Ask(u64, Ask),
    /// The answer to who asked: the state now, or why not.
    Answer(Option<Why>),
    /// `cluster.toml` becomes the pushed file, before what follows is saved.
    Install(Proposal),
    /// Make this durable, then report it.
    Save(Durable),
    /// This run ends; the next one begins with what is durable.
    Restart,
    /// The push that was driven here is decided, or is not.
    Ended(Result<(), Why>),
}

/// An event that may not come now, and that changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutOfTurn {
    /// The last [`Effect::Save`] is not reported.
    Early,
    /// Nothing is to be saved.
    Unasked,
}

impl fmt::Display for OutOfTurn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Early => "an event before it is known whether the last state is durable",
            Self::Unasked => "a report on what was not to be saved",
        })
    }
}
