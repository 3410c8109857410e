//! What a node and a witness say to each other: one line of JSON each, over mutual TLS.
//!
//! ```json
//! {"schema":"lockstep.arbiter/1","number":7,"ask":"claim","claims":[{"volume":"..","basis":{"epoch":5,"id":".."},"next":{"epoch":6,"id":".."}}]}
//! {"schema":"lockstep.arbiter/1","number":7,"answer":"granted","views":[{"epoch":6,"id":".."}]}
//! ```
//!
//! Who asks is what the certificate says, never what a line says. Ids are 32 hexadecimal digits.

use mirror_core::types::{Epoch, NodeId, NodeSet, ViewId, VolumeId};
use mirror_core::view::{View, ViewMark};
use serde::{Deserialize, Serialize};

use crate::trust::{TrustAnswer, TrustAsk};

/// The version of the messages.
pub const SCHEMA: &str = "lockstep.arbiter/1";
/// Longest line that is read: 256 volumes of a claim.
pub const LINE_BYTES_MAX: usize = 128 * 1024;

/// 16 bytes as hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hex16(pub [u8; 16]);

impl Serialize for Hex16 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_string())
    }
}

impl std::fmt::Display for Hex16 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl std::str::FromStr for Hex16 {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let value = u128::from_str_radix(text, 16).ok().filter(|_| digits);
        let value = value.ok_or_else(|| format!("{text:?} is not 32 hexadecimal digits"))?;
        Ok(Self(value.to_be_bytes()))
    }
}

impl<'de> Deserialize<'de> for Hex16 {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A view's mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Its epoch.
    pub epoch: u64,
    /// Its id.
    pub id: Hex16,
}

impl From<ViewMark> for Mark {
    fn from(mark: ViewMark) -> Self {
        Self {
            epoch: mark.epoch.0,
            id: Hex16(mark.id.0),
        }
    }
}

impl From<Mark> for ViewMark {
    fn from(mark: Mark) -> Self {
        Self {
            epoch: Epoch(mark.epoch),
            id: ViewId(mark.id.0),
        }
    }
}

/// One volume of a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimLine {
    /// Which volume.
    pub volume: Hex16,
    /// The view that the claimant's copy holds durably.
    pub basis: Mark,
    /// The view that it wants.
    pub next: Mark,
    /// The views before the basis, the newest first.
    #[serde(default)]
    pub history: Vec<Mark>,
}

/// A volume's view, as its node holds it durably.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Which volume.
    pub volume: Hex16,
    /// The view.
    pub view: Mark,
    /// Whose copies count, one bit a node.
    pub insync: u8,
}

impl Held {
    /// Of a volume.
    pub fn new(volume: VolumeId, view: &View) -> Self {
        Self {
            volume: Hex16(volume.0),
            view: view.mark().into(),
            insync: view.insync.bits(),
        }
    }

    /// The volume and the view; who serves it is not said.
    pub fn view(&self) -> (VolumeId, View) {
        let mark = ViewMark::from(self.view);
        let view = View {
            epoch: mark.epoch,
            id: mark.id,
            active: None,
            insync: NodeSet::from_bits(self.insync),
        };
        (VolumeId(self.volume.0), view)
    }
}

/// What a node asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Ask {
    /// First on a connection, and then every interval: this is what the node's copies hold.
    Report {
        /// All volumes whose views do not change right now.
        volumes: Vec<Held>,
    },
    /// Views that the node wants to commit alone, all or none.
    Claim {
        /// Each volume.
        claims: Vec<ClaimLine>,
    },
    /// Grants that will not be used.
    Release {
        /// The volumes, with the views that the node holds durably.
        volumes: Vec<(Hex16, Mark)>,
    },
    /// Whom the witness trusts in this cluster, and what it shows it. It touches no register, and may come on a connection
    /// beside the one for those.
    Trust {
        /// The step.
        trust: TrustAsk,
    },
}

/// A question as it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskLine {
    /// [`SCHEMA`].
    pub schema: String,
    /// Repeated by the answer.
    pub number: u64,
    /// The question.
    #[serde(flatten)]
    pub ask: Ask,
}

impl AskLine {
    /// A line of the present schema.
    pub fn new(number: u64, ask: Ask) -> Self {
        Self {
            schema: SCHEMA.to_string(),
            number,
            ask,
        }
    }
}

/// What the witness answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Reply {
    /// The report was taken.
    Reported {
        /// Who has to report before anything can be granted, one bit a node.
        #[serde(default)]
        missing: u8,
    },
    /// The views may be committed.
    Granted {
        /// In the order of the claim.
        views: Vec<Mark>,
    },
    /// What was released is free, and that is durable.
    Released,
    /// Another node went on from there.
    Superseded {
        /// Because of this volume.
        volume: Hex16,
        /// The granted epoch.
        epoch: u64,
        /// To whom.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        holder: Option<NodeId>,
    },
    /// Another node may still act on what it was granted.
    Held {
        /// Because of this volume.
        volume: Hex16,
        /// The granted epoch.
        epoch: u64,
        /// To whom.
        holder: NodeId,
    },
    /// The claimant's view is another one of the granted epoch.
    Diverged {
        /// Because of this volume.
        volume: Hex16,
        /// The granted epoch.
        epoch: u64,
    },
    /// This witness has to hear every member first.
    NotEnrolled {
        /// Because of this volume.
        volume: Hex16,
        /// Who was not heard, one bit a node.
        missing: u8,
    },
    /// How the witness stands, after a [`Ask::Trust`].
    Trusted {
        /// That.
        trust: TrustAnswer,
    },
    /// The question is wrong, or the witness cannot make anything durable.
    Failed {
        /// What is wrong.
        reason: String,
    },
}

/// An answer as it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyLine {
    /// [`SCHEMA`].
    pub schema: String,
    /// The question's number.
    pub number: u64,
    /// The answer.
    #[serde(flatten)]
    pub reply: Reply,
}

impl ReplyLine {
    /// A line of the present schema.
    pub fn new(number: u64, reply: Reply) -> Self {
        Self {
            schema: SCHEMA.to_string(),
            number,
            reply,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_the_documentation_are_understood() {
        let id = "00112233445566778899aabbccddeeff";
        let line = format!(
            r#"{{"schema":"lockstep.arbiter/1","number":7,"ask":"claim","claims":[{{"volume":"{id}","basis":{{"epoch":5,"id":"{id}"}},"next":{{"epoch":6,"id":"{id}"}},"later":1}}]}}"#
        );
        let parsed: AskLine = serde_json::from_str(&line).expect("a question");
        let id: Hex16 = id.parse().expect("an id");
        let mark = |epoch| Mark { epoch, id };
        let claims = vec![ClaimLine {
            volume: id,
            basis: mark(5),
            next: mark(6),
            history: Vec::new(),
        }];
        assert_eq!(parsed, AskLine::new(7, Ask::Claim { claims }));
        let reply = ReplyLine::new(
            7,
            Reply::Granted {
                views: vec![mark(6)],
            },
        );
        let text = serde_json::to_string(&reply).expect("json");
        assert_eq!(
            text,
            format!(
                r#"{{"schema":"lockstep.arbiter/1","number":7,"answer":"granted","views":[{{"epoch":6,"id":"{id}"}}]}}"#
            )
        );
    }

    #[test]
    fn an_id_is_32_digits_and_nothing_else() {
        for wrong in ["", "0", "+0112233445566778899aabbccddeeff", &"0".repeat(33)] {
            assert!(wrong.parse::<Hex16>().is_err(), "{wrong}");
        }
    }
}
