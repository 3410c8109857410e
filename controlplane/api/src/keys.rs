//! The cluster's secret on both nodes, and another one: `GET /v1/keys`, and `POST /v1/keys/rotate` with a [`RotateAsk`] at
//! [`node_socket`](crate::paths::node_socket). What is refused is answered with status 409 and
//! [`Refused`](crate::verbs::Refused). No answer has a secret in it.

use mirror_core::admin::Problem;
use serde::{Deserialize, Serialize};

/// The schema of [`KeysShow`]; a later one only adds.
pub const SHOW_SCHEMA: &str = "lockstep.keys/1";
/// The schema of [`Rotated`]; a later one only adds.
pub const ROTATE_SCHEMA: &str = "lockstep.keys-rotate/1";

/// Another secret is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotateAsk {
    /// Only say whether it could be.
    #[serde(default)]
    pub dry_run: bool,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It could be; nothing was changed.
    Possible,
    /// It began, and goes on by itself.
    Begun,
    /// One was under way, and goes on.
    UnderWay,
}

/// A rotation was not refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotated {
    /// [`ROTATE_SCHEMA`].
    pub schema: String,
    /// True.
    pub ok: bool,
    /// What came of it.
    pub outcome: Outcome,
    /// The generation that both nodes come to.
    pub generation: u64,
}

/// Between two generations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// One secret is sent and accepted.
    Settled,
    /// The next one is accepted as well.
    AcceptsNext,
    /// The new one is sent, the last one is accepted as well.
    AcceptsLast,
}

/// How far a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeKeys {
    /// Its name.
    pub node: String,
    /// The generation that it sends, from 0.
    pub generation: u64,
    /// What it accepts.
    pub stage: Stage,
    /// Everything on it goes by that: heartbeats, and the daemons of its volumes.
    pub adopted: bool,
    /// Why it does not get on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

impl NodeKeys {
    /// Whether it sends and accepts this generation alone, or a later one.
    pub fn has(&self, generation: u64) -> bool {
        self.generation > generation
            || self.generation == generation && self.stage == Stage::Settled && self.adopted
    }
}

/// How far both are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysShow {
    /// [`SHOW_SCHEMA`].
    pub schema: String,
    /// True.
    pub ok: bool,
    /// The node that was asked.
    pub own: NodeKeys,
    /// The name of the other one.
    pub peer_name: String,
    /// The other one, if it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<NodeKeys>,
    /// Why it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_problem: Option<Problem>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_later_release_adds_is_left_out() {
        let line = r#"{"schema":"lockstep.keys/1","ok":true,"peer_name":"node2","new":1,
            "own":{"node":"node1","generation":3,"stage":"accepts-last","adopted":true,"new":1}}"#;
        let shown: KeysShow = serde_json::from_str(line).unwrap();
        assert_eq!(
            (shown.own.generation, shown.own.stage),
            (3, Stage::AcceptsLast)
        );
        assert!(!shown.own.has(3) && shown.own.has(2));
        let asked: RotateAsk = serde_json::from_str("{}").unwrap();
        assert!(!asked.dry_run);
    }
}
