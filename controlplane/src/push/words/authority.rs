//! What the nodes say to each other about the cluster's authority.

use controlplane_api::arbiter::Hex16;
use controlplane_api::trust::{MemberTrust, TrustAnswer, TrustAsk, TrustOutcome};
use mirror_core::admin::Problem;
use serde::{Deserialize, Serialize};

/// What an operator wishes of the node that has the authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::push) enum TrustVerb {
    /// Another authority.
    Rotate,
    /// Other certificates of the present one.
    Renew,
}

/// A question.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub(in crate::push) enum TrustQuestion {
    /// What the node that leads asks a member.
    Step { ask: TrustAsk },
    /// How it stands, for people.
    Show,
    /// What somebody wished of the other node. `since`: the authority that was shown there then: one wish is one change, however
    /// often it comes.
    Wish {
        verb: TrustVerb,
        dry_run: bool,
        since: Option<Hex16>,
    },
}

/// What came of a wish.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(in crate::push) struct DoneLine {
    pub(in crate::push) outcome: TrustOutcome,
    #[serde(default)]
    pub(in crate::push) authority: Option<Hex16>,
}

/// The answer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(in crate::push) struct TrustSaid {
    /// After a step.
    #[serde(default)]
    pub(in crate::push) answer: Option<TrustAnswer>,
    /// For people.
    #[serde(default)]
    pub(in crate::push) member: Option<MemberTrust>,
    /// After a wish.
    #[serde(default)]
    pub(in crate::push) done: Option<DoneLine>,
    #[serde(default)]
    pub(in crate::push) problem: Option<Problem>,
}
