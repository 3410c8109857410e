//! The configuration of both nodes, and pushing another one: `GET /v1/config`, `POST /v1/config/push` with a [`PushAsk`] and
//! `POST /v1/config/abandon` with `{}` at [`node_socket`](crate::paths::node_socket). What is refused is answered with
//! status 409 and [`Refused`](crate::verbs::Refused).

use mirror_core::admin::Problem;
use serde::{Deserialize, Serialize};

/// The schema of [`ConfigShow`]; a later one only adds.
pub const SHOW_SCHEMA: &str = "lockstep.config-show/1";
/// The schema of [`Pushed`]; a later one only adds.
pub const PUSH_SCHEMA: &str = "lockstep.config-push/1";
/// A file that is pushed has so many bytes at most; both nodes keep two of them.
pub const PUSH_BYTES_MAX: usize = 256 * 1024;

/// What shall be in force on both nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushAsk {
    /// The file.
    pub text: String,
    /// The digest, or its beginning, of what it is to replace; without it whatever is in force when the push begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// Also over a `cluster.toml` that was changed by hand, and over files that differ.
    #[serde(default)]
    pub replace_edited: bool,
    /// Only say what would come of it.
    #[serde(default)]
    pub dry_run: bool,
}

/// What came of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is in force on both nodes already.
    Nothing,
    /// It could be pushed; nothing was changed.
    Possible,
    /// It is decided: it comes into force on both nodes.
    Decided,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeLine {
    /// Which key or table.
    pub key: String,
    /// In words.
    pub what: String,
}

/// A push was not refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pushed {
    /// [`PUSH_SCHEMA`].
    pub schema: String,
    /// True.
    pub ok: bool,
    /// What came of it.
    pub outcome: Outcome,
    /// The number of the file in force then.
    pub number: u64,
    /// BLAKE3 of the file, hexadecimal.
    pub digest: String,
    /// What changes, as the node that was asked sees it.
    pub changes: Vec<ChangeLine>,
    /// What both nodes find worth a second look.
    pub warnings: Vec<String>,
}

/// How far a push is on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PushStage {
    /// The node drives it, and has not decided.
    Asking,
    /// The node promised, and has not heard whether it is decided.
    Promised,
    /// It is decided, and not in force yet.
    Decided,
}

/// A push that is under way on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushLine {
    /// Its number.
    pub number: u64,
    /// The new file.
    pub digest: String,
    /// The node that drives it.
    pub by: String,
    /// How far it is.
    pub stage: PushStage,
    /// Since when, seconds since 1970; absent while it is not durable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_unix_s: Option<u64>,
    /// Why it does not get on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// What one node goes by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeConfig {
    /// Which node.
    pub node: String,
    /// The number of the push that brought the file in force; 0: none did.
    pub number: u64,
    /// The file in force.
    pub digest: String,
    /// Since when, seconds since 1970; absent if no push brought it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_unix_s: Option<u64>,
    /// The file that the running `lockstepd` loaded.
    pub runs: String,
    /// `cluster.toml` as it is now; absent if it cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Whether `cluster.toml` is neither in force nor decided: somebody changed it by hand.
    pub edited: bool,
    /// Where a decided push put what it found changed by hand. Nobody reads these files.
    #[serde(default)]
    pub set_aside: Vec<String>,
    /// A push that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push: Option<PushLine>,
}

/// What both go by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigShow {
    /// [`SHOW_SCHEMA`].
    pub schema: String,
    /// True.
    pub ok: bool,
    /// The node that was asked.
    pub own: NodeConfig,
    /// The name of the other one.
    pub peer_name: String,
    /// The other one, if it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<NodeConfig>,
    /// Why it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_problem: Option<Problem>,
}

/// Whether a push that was not decided was taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abandoned {
    /// [`PUSH_SCHEMA`].
    pub schema: String,
    /// True.
    pub ok: bool,
    /// For a person.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_later_release_adds_is_left_out() {
        let line = r#"{"schema":"lockstep.config-push/1","ok":true,"outcome":"decided","number":3,
            "digest":"00","changes":[{"key":"clients","what":"x","new":1}],"warnings":[],"new":1}"#;
        let pushed: Pushed = serde_json::from_str(line).unwrap();
        assert_eq!((pushed.outcome, pushed.number), (Outcome::Decided, 3));
        let asked: PushAsk = serde_json::from_str(r#"{"text":"version = 1"}"#).unwrap();
        assert!(!asked.dry_run && !asked.replace_edited && asked.replaces.is_none());
    }
}
