//! What operators wish of the whole cluster at once: `POST /v1/cluster/VERB` with an [`AskedTogether`] as body. The answer is
//! [`SaidTogether`] with status 200 once all of it is durable on that node, or [`Refused`](crate::verbs::Refused) with 409.

use serde::{Deserialize, Serialize};

/// The schema of the answer; a later one only adds.
pub const SCHEMA: &str = "lockstep.cluster-verb/1";

/// What may be done to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClusterVerb {
    /// Stop every group that is not stopped, and remember which.
    Stop,
    /// Run those again.
    Start,
    /// Nothing is moved or taken over.
    Suspend,
    /// It is again.
    Resume,
}

/// The body of a request. An unknown field is refused: a misspelt `dry_run` would stop the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskedTogether {
    /// Only what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// It is wished, durably on the node that was asked; the other one is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaidTogether {
    /// [`SCHEMA`].
    pub schema: String,
    /// True.
    pub ok: bool,
    /// Nothing was done: this is what would be.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// For a person.
    pub message: String,
    /// Every group, or both nodes.
    pub parts: Vec<Part>,
}

/// What is wished of a group or a node, and by whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The group, or the node.
    pub name: String,
    /// Whether this verb changed what is wished of it; with `dry_run`: whether it would.
    pub changed: bool,
    /// The wish's number; absent if nobody ever wished anything of it, and with `dry_run` if it would be a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// The node on which it was wished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// For a person.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_are_these_lines() {
        let asked: AskedTogether = serde_json::from_str("{}").unwrap();
        assert_eq!(asked, AskedTogether::default());
        for misspelt in [r#"{"dry-run":true}"#, r#"{"dryRun":true}"#] {
            assert!(serde_json::from_str::<AskedTogether>(misspelt).is_err());
        }
        let line = r#"{"schema":"lockstep.cluster-verb/1","ok":true,"message":"done","parts":[{"name":"pg","changed":true,"number":5,"by":"node1","message":"is stopped"}]}"#;
        let said: SaidTogether = serde_json::from_str(line).unwrap();
        assert_eq!(said.parts[0].number, Some(5));
        assert_eq!(serde_json::to_string(&said).unwrap(), line);
        let verb = serde_json::to_string(&ClusterVerb::Suspend).unwrap();
        assert_eq!(verb, "\"suspend\"");
    }
}
