//! Why a node decided what it decided, and what it waits for: `GET /v1/why` at [`node_socket`](crate::paths::node_socket).
//!
//! All of it was written down when it was decided, by the values that it was decided from. Times are milliseconds before
//! [`Why::at_ms`], or after it where that is said.

use serde::{Deserialize, Serialize};

use crate::cluster::{PathState, Presence};

/// The schema of [`Why`]; a later one only adds.
pub const SCHEMA: &str = "lockstep.why/1";

/// Why everything is as it is, as one node sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// [`SCHEMA`].
    pub schema: String,
    /// This node.
    pub node: String,
    /// When it was asked, milliseconds since 1970.
    pub at_ms: u64,
    /// How the other node counts, and on which paths that rests.
    pub peer: PeerWhy,
    /// All groups, in the order of the configuration.
    pub groups: Vec<GroupWhy>,
}

/// How the other node counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerWhy {
    /// Its name.
    pub name: String,
    /// What it was last found to be, with the paths as they were at that moment; absent before anything was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub present: Option<Found>,
    /// The same of what it was found to be before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Found>,
    /// The paths as they are now: the interconnects in their order, then the mirror link.
    pub paths: Vec<PathWhy>,
}

/// When the other node was found to be otherwise than before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// What.
    pub presence: Presence,
    /// How long ago.
    pub since_ms: u64,
    /// Each path at that moment.
    pub paths: Vec<PathWhy>,
}

/// How a path was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathWhy {
    /// By its addresses, or `mirror link`.
    pub name: String,
    /// How it was.
    pub state: PathState,
    /// How long ago the other node was heard on it; absent if it was not, since this run began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_ms: Option<u64>,
}

/// Why a group is as it is on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupWhy {
    /// Its name.
    pub name: String,
    /// In a sentence.
    pub text: String,
    /// What is waited for, now; absent if nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<Waits>,
    /// The row of the table that rules, by what is known now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub present: Option<RulingWhy>,
    /// The one that ruled before, by what was known when it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<RulingWhy>,
    /// The last one that did something, if it is none of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acted: Option<RulingWhy>,
    /// Its resources; absent if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourcesWhy>,
}

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waits {
    /// What.
    pub what: String,
    /// What ends it.
    pub ends: String,
    /// Time alone ends it so many milliseconds after [`Why::at_ms`]; absent if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_ms: Option<u64>,
}

/// A row of the table in docs/controlplane.md that rules, or ruled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulingWhy {
    /// Its number, from 1.
    pub row: usize,
    /// Its columns.
    pub standing: String,
    /// What else it needs.
    pub condition: String,
    /// What follows.
    pub decision: String,
    /// How long ago it began to rule.
    pub since_ms: u64,
    /// How long ago it ruled last.
    pub until_ms: u64,
    /// What it was decided from.
    pub inputs: Vec<Input>,
    /// The group's volumes at that moment.
    pub volumes: Vec<VolumeWhy>,
}

/// Something that a decision was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// What it is about.
    pub name: String,
    /// What was known of it, for programs.
    pub value: String,
    /// The same for people.
    pub text: String,
}

/// How a volume stood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeWhy {
    /// Its name.
    pub name: String,
    /// Its standing, in the table's words; absent if its daemon did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing: Option<String>,
    /// The epoch of the view that this copy held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// The view's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<String>,
    /// Whether the mirror link was up.
    pub linked: bool,
    /// Whether this copy alone counted.
    pub alone: bool,
    /// Whether its view changed, or its daemon was being told something.
    pub changing: bool,
    /// How long ago its daemon was asked; absent if it never was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_ms: Option<u64>,
}

/// Why a group's resources are as they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourcesWhy {
    /// How they are.
    pub state: String,
    /// What decided that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub present: Option<Because>,
    /// What decided before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Because>,
    /// On what their time rests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ground: Option<Input>,
}

/// A reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Because {
    /// In a word.
    pub reason: String,
    /// In a sentence.
    pub text: String,
    /// How long ago it began to hold.
    pub since_ms: u64,
}
