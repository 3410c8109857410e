//! What the nodes say to each other about the cluster's key.

use std::fmt;

use controlplane_api::arbiter::Hex16;
use controlplane_api::keys::{NodeKeys, Outcome};
use mirror_core::admin::Problem;
use mirror_core::keys::{Fingerprint, Place, Prints, Secret};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const SECRET_BYTES: usize = 32;

/// A [`Prints`].
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(in crate::push) struct PrintsLine {
    place: u64,
    sent: Hex16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    other: Option<Hex16>,
}

impl From<Prints> for PrintsLine {
    fn from(prints: Prints) -> Self {
        Self {
            place: prints.place.0,
            sent: Hex16(prints.sent.0),
            other: prints.other.map(|print| Hex16(print.0)),
        }
    }
}

impl PrintsLine {
    pub(in crate::push) fn read(self) -> Prints {
        Prints {
            place: Place(self.place),
            sent: Fingerprint(self.sent.0),
            other: self.other.map(|print| Fingerprint(print.0)),
        }
    }
}

/// A secret: it goes through TLS to the other node, and nowhere else.
#[derive(Clone, Copy)]
pub(in crate::push) struct SecretLine(pub(in crate::push) Secret);

impl fmt::Debug for SecretLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretLine")
    }
}

impl Serialize for SecretLine {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = self.0.bytes();
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        serializer.serialize_str(&digits)
    }
}

impl<'de> Deserialize<'de> for SecretLine {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let digits = String::deserialize(deserializer)?;
        // What it was instead is not repeated: errors are logged.
        let wrong = || de::Error::custom("64 digits were expected");
        let mut bytes = [0; SECRET_BYTES];
        if digits.len() != 2 * SECRET_BYTES {
            return Err(wrong());
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Self(Secret::new(bytes)))
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::push) enum KeysWord {
    /// How far it is; the one who asks says how far it is itself.
    #[default]
    Look,
    /// Whether a rotation can begin there.
    Ready,
    /// Whether the first node can begin one.
    TryOut,
    /// To begin one.
    Rotate,
}

/// A question about keys.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(in crate::push) struct KeysAsk {
    pub(in crate::push) word: KeysWord,
    /// How far the one who asks stands; nothing while it is between two places.
    #[serde(default)]
    pub(in crate::push) prints: Option<PrintsLine>,
    /// The secret of the next generation, if it has come to that.
    #[serde(default)]
    pub(in crate::push) new: Option<SecretLine>,
}

/// What came of a wish.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(in crate::push) struct RotatedLine {
    outcome: Outcome,
    generation: u64,
}

impl From<(Outcome, u64)> for RotatedLine {
    fn from((outcome, generation): (Outcome, u64)) -> Self {
        Self {
            outcome,
            generation,
        }
    }
}

impl RotatedLine {
    pub(in crate::push) fn read(self) -> (Outcome, u64) {
        (self.outcome, self.generation)
    }
}

/// The answer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(in crate::push) struct KeysAnswer {
    #[serde(default)]
    pub(in crate::push) prints: Option<PrintsLine>,
    /// The same for people.
    #[serde(default)]
    pub(in crate::push) node: Option<NodeKeys>,
    #[serde(default)]
    pub(in crate::push) rotated: Option<RotatedLine>,
    #[serde(default)]
    pub(in crate::push) problem: Option<Problem>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_told_whole_and_never_printed() {
        let secret = Secret::new(std::array::from_fn(|at| at.to_le_bytes()[0]));
        let ask = KeysAsk {
            new: Some(SecretLine(secret)),
            ..KeysAsk::default()
        };
        let text = serde_json::to_string(&ask).expect("JSON");
        let heard: KeysAsk = serde_json::from_str(&text).expect("the same");
        assert_eq!(heard.new.map(|line| line.0), Some(secret));
        assert!(!format!("{ask:?}").contains("0203"), "{ask:?}");
        for wrong in ["", "00", &"g".repeat(64), &"é".repeat(32)] {
            let text = format!("{{\"word\":\"look\",\"new\":\"{wrong}\"}}");
            let error = serde_json::from_str::<KeysAsk>(&text).expect_err("no secret");
            assert!(wrong.is_empty() || !error.to_string().contains(wrong));
        }
    }
}
