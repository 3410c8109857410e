//! What operators wish, as they say it: `POST /v1/groups/GROUP/VERB` and `POST /v1/nodes/NODE/VERB` at
//! [`node_socket`](crate::paths::node_socket), with an [`Asked`] as body. The answer is [`Said`] with status 200 once the
//! wish is durable on that node, or [`Refused`] with 409 and nothing was changed; but what is only not durable yet (LS6087)
//! is tried again, and followed then.

use mirror_core::admin::Problem;
use serde::{Deserialize, Serialize};

/// The schema of the answers; a later one only adds.
pub const SCHEMA: &str = "lockstep.verb/1";

/// What may be done to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GroupVerb {
    /// Run it on the other node.
    Move,
    /// Stop it, and keep it stopped.
    Stop,
    /// Run it again.
    Start,
    /// Forget what failed.
    Clear,
}

/// What may be done to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeVerb {
    /// It takes nothing over.
    Suspend,
    /// It does again.
    Resume,
}

/// The body of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Of a move: to where; without it to the node that does not serve the group. Of a start: where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// The body of `POST /v1/timeouts/scale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScaleAsked {
    /// How many times as long, in tenths.
    pub factor_tenths: u16,
    /// For how long, seconds.
    pub for_s: u64,
}

/// It is wished, durably on the node that was asked; the other one is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// [`SCHEMA`].
    pub schema: String,
    /// True.
    pub ok: bool,
    /// The wish's number; absent if it was so already, and there is nothing to wait for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// The node on which it was wished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Of a move or a start: the node it is about, if one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// For a person.
    pub message: String,
}

/// It is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// [`SCHEMA`].
    pub schema: String,
    /// False.
    pub ok: bool,
    /// Why not, and what to do.
    pub problem: Problem,
}

impl Refused {
    /// For this reason.
    pub fn new(problem: Problem) -> Self {
        Self {
            schema: SCHEMA.to_string(),
            ok: false,
            problem,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_are_these_lines() {
        let node = Some("node2".to_string());
        let asked = Asked { node };
        assert_eq!(
            serde_json::to_string(&asked).unwrap(),
            r#"{"node":"node2"}"#
        );
        assert_eq!(
            serde_json::from_str::<Asked>("{}").unwrap(),
            Asked::default()
        );
        let line = r#"{"schema":"lockstep.verb/1","ok":true,"number":5,"message":"done","new":1}"#;
        let said: Said = serde_json::from_str(line).unwrap();
        assert_eq!((said.number, said.node), (Some(5), None));
        for (verb, word) in [
            (GroupVerb::Move, "\"move\""),
            (GroupVerb::Clear, "\"clear\""),
        ] {
            assert_eq!(serde_json::to_string(&verb).unwrap(), word);
        }
    }
}
