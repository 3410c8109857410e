//! The cluster's authority and what it certified: `GET /v1/trust`, `POST /v1/trust/rotate` and `POST /v1/trust/renew`, both with a
//! [`TrustWish`], at [`node_socket`](crate::paths::node_socket); and what the node that has the authority asks the other members.
//! What is refused is answered with status 409 and [`Refused`](crate::verbs::Refused). No answer has a key in it.

use mirror_core::admin::Problem;
use serde::{Deserialize, Serialize};

use crate::arbiter::Hex16;

/// The schema of [`TrustShow`]; a later one only adds.
pub const SHOW_SCHEMA: &str = "lockstep.trust/1";
/// The schema of [`TrustDone`]; a later one only adds.
pub const DONE_SCHEMA: &str = "lockstep.trust-done/1";

/// What a member is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum TrustAsk {
    /// How it stands.
    Look,
    /// To trust this authority as well, and to make another key.
    Trust {
        /// Its certificate.
        authority: String,
        /// That the present authority said so: hexadecimal digits.
        endorsement: String,
    },
    /// To make another key, if none is ready, and to say for what a certificate is needed.
    Prepare,
    /// To show this certificate from now on, of the key that is ready.
    Show {
        /// The certificate.
        certificate: String,
        /// What the witness shows: for a node.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        witness: Option<String>,
    },
    /// To trust this authority alone, of both.
    Settle {
        /// Its print.
        authority: Hex16,
        /// That it said itself that the last one is over: hexadecimal digits.
        retirement: String,
        /// What the witness shows: for a node.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        witness: Option<String>,
    },
}

/// How a member stands, after what it was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustAnswer {
    /// The prints of the authorities that it trusts, the last one first.
    #[serde(default)]
    pub trusted: Vec<Hex16>,
    /// Of the authority that signed what it shows; nothing for a witness that shows its own certificate.
    #[serde(default)]
    pub shown: Option<Hex16>,
    /// What it shows, if the authority signed it.
    #[serde(default)]
    pub certificate: Option<String>,
    /// A signing request for the key that is ready, if there is one.
    #[serde(default)]
    pub request: Option<String>,
    /// What time it is there, seconds since 1970.
    #[serde(default)]
    pub now: Option<i64>,
    /// Why it did not do what it was asked.
    #[serde(default)]
    pub problem: Option<Problem>,
}

/// What an operator wishes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustWish {
    /// Only say whether it could be.
    #[serde(default)]
    pub dry_run: bool,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrustOutcome {
    /// It could be; nothing was changed.
    Possible,
    /// It began, and goes on by itself.
    Begun,
    /// One was under way, and goes on.
    UnderWay,
    /// All members have another certificate.
    Renewed,
}

/// A wish was not refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustDone {
    /// [`DONE_SCHEMA`].
    pub schema: String,
    /// True.
    pub ok: bool,
    /// What came of it.
    pub outcome: TrustOutcome,
    /// The authority that all members come to, if that changes and is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<Hex16>,
}

/// Between two authorities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrustStage {
    /// One is trusted.
    Settled,
    /// The next one is trusted as well.
    TrustsNext,
    /// A certificate of the next one is shown, the last one is trusted as well.
    ShowsNext,
}

/// How a member stands, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberTrust {
    /// A node's name, or `witness`.
    pub member: String,
    /// Whether the authority's key is there.
    #[serde(default)]
    pub leads: bool,
    /// The authority that signed what it shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<Hex16>,
    /// What it trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<TrustStage>,
    /// When its certificate ends, seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_ends: Option<i64>,
    /// When the authority's certificate ends, seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority_ends: Option<i64>,
    /// Why it cannot be said, or why it does not get on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

impl MemberTrust {
    /// Whether it shows and trusts this authority alone.
    pub fn has(&self, authority: Hex16) -> bool {
        self.authority == Some(authority) && self.stage == Some(TrustStage::Settled)
    }
}

/// How all members stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustShow {
    /// [`SHOW_SCHEMA`].
    pub schema: String,
    /// True.
    pub ok: bool,
    /// The node that was asked, the other one, and the witness if there is one.
    pub members: Vec<MemberTrust>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_of_a_later_release_and_an_earlier_question_are_understood() {
        let ask: TrustAsk = serde_json::from_str(r#"{"step":"look","later":1}"#).unwrap();
        assert_eq!(ask, TrustAsk::Look);
        let answer: TrustAnswer = serde_json::from_str("{}").unwrap();
        assert_eq!(answer, TrustAnswer::default());
        let show: TrustShow =
            serde_json::from_str(r#"{"schema":"s","ok":true,"members":[{"member":"n"}]}"#).unwrap();
        assert!(!show.members[0].has(Hex16([0; 16])));
    }
}
