//! The cluster's secret, and the way from one to the next without a moment in which the nodes do not understand each other.
//!
//! A cluster keeps its id for ever; what proves that somebody belongs to it may change. Each secret has a generation. From
//! one to the next it is three steps, and each is durable before the next one:
//!
//! | place | sends | accepts |
//! |---|---|---|
//! | 3g | g | g |
//! | 3g + 1 | g | g, g + 1 |
//! | 3g + 2 | g + 1 | g, g + 1 |
//! | 3(g + 1) | g + 1 | g + 1 |
//!
//! Nodes that are at the same place, or at neighbouring ones, understand each other ([`Keys::understands`]); others do not.

use crate::auth::cluster_id;
use crate::types::ClusterId;

const FINGERPRINT_CONTEXT: &str = "lockstep 2026-11 fingerprint of a cluster key";

/// 32 bytes that only members know. Never written into a log: its debug form hides it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Secret([u8; 32]);

impl core::fmt::Debug for Secret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// These bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for what derives keys from them.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// By which two nodes see whether they have the same one: it does not tell what it is.
    pub fn fingerprint(&self) -> Fingerprint {
        let image = blake3::derive_key(FINGERPRINT_CONTEXT, &self.0);
        let mut print = [0; 16];
        print.copy_from_slice(&image[..16]);
        Fingerprint(print)
    }
}

/// See [`Secret::fingerprint`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 16]);

/// How far a cluster's secrets have come: see the module. Never falls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(pub u64);

impl Place {
    /// The generation that is sent.
    pub fn generation(self) -> u64 {
        (self.0 + 1) / 3
    }

    /// Whether one secret alone is accepted.
    pub fn is_settled(self) -> bool {
        self.0.is_multiple_of(3)
    }
}

/// What is accepted besides what is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Other {
    /// Nothing.
    None,
    /// The secret of the next generation.
    Next(Secret),
    /// That of the last one.
    Last(Secret),
}

/// What a member of a cluster sends and accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Keys {
    cluster: ClusterId,
    generation: u64,
    sent: Secret,
    other: Other,
}

impl Keys {
    /// Generations end here: sums stay far from overflow.
    pub const GENERATION_MAX: u64 = 1 << 32;

    /// Of a cluster whose secret was never changed: its id is an image of this key.
    pub fn first(cluster_key: &[u8; 32]) -> Self {
        Self {
            cluster: cluster_id(cluster_key),
            generation: 0,
            sent: Secret(*cluster_key),
            other: Other::None,
        }
    }

    /// As they were written down. `None` if there can be no such keys.
    pub fn of_parts(
        cluster: ClusterId,
        generation: u64,
        sent: Secret,
        other: Other,
    ) -> Option<Self> {
        let follows_none = generation == 0 && matches!(other, Other::Last(_));
        let same = match other {
            Other::None => false,
            Other::Next(other) | Other::Last(other) => other == sent,
        };
        let legal = !follows_none && !same && generation <= Self::GENERATION_MAX;
        legal.then_some(Self {
            cluster,
            generation,
            sent,
            other,
        })
    }

    /// Which cluster.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The generation that is sent.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What this member proves itself with.
    pub fn sent(&self) -> &Secret {
        &self.sent
    }

    /// What is accepted besides.
    pub fn other(&self) -> &Other {
        &self.other
    }

    /// Every secret with which another member may prove itself.
    pub fn accepted(&self) -> impl Iterator<Item = &Secret> {
        let other = match &self.other {
            Other::None => None,
            Other::Next(secret) | Other::Last(secret) => Some(secret),
        };
        core::iter::once(&self.sent).chain(other)
    }

    /// How far they have come.
    pub fn place(&self) -> Place {
        match self.other {
            Other::None => Place(3 * self.generation),
            Other::Next(_) => Place(3 * self.generation + 1),
            Other::Last(_) => Place(3 * self.generation - 1),
        }
    }

    /// Whether a member with these hears one with those.
    pub fn understands(&self, sender: &Self) -> bool {
        self.cluster == sender.cluster && self.accepted().any(|secret| *secret == sender.sent)
    }

    /// One step further, `new` being the secret of the next generation. `None` if `new` is missing where a rotation begins,
    /// is what is sent already, or no generation is left.
    pub fn step(&self, new: Option<Secret>) -> Option<Self> {
        let (generation, sent, other) = match self.other {
            Other::None => (self.generation, self.sent, Other::Next(new?)),
            Other::Next(next) => (self.generation + 1, next, Other::Last(self.sent)),
            Other::Last(_) => (self.generation, self.sent, Other::None),
        };
        Self::of_parts(self.cluster, generation, sent, other)
    }

    /// What identifies them: what is sent, and what is accepted besides.
    pub fn prints(&self) -> Prints {
        let other = match &self.other {
            Other::None => None,
            Other::Next(secret) | Other::Last(secret) => Some(secret.fingerprint()),
        };
        Prints {
            place: self.place(),
            sent: self.sent.fingerprint(),
            other,
        }
    }
}

/// How far somebody's keys have come, and which they are, without saying what they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prints {
    /// How far.
    pub place: Place,
    /// Of the secret that is sent.
    pub sent: Fingerprint,
    /// Of the one that is accepted besides.
    pub other: Option<Fingerprint>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first `count` places of a cluster.
    fn way(count: u64) -> std::vec::Vec<Keys> {
        let mut keys = std::vec![Keys::first(&[1; 32])];
        for number in 1..count {
            let new = Secret([u8::try_from(number + 1).expect("a byte"); 32]);
            let last = keys[keys.len() - 1];
            keys.push(last.step(Some(new)).expect("a step"));
        }
        keys
    }

    #[test]
    fn members_at_neighbouring_places_understand_each_other_and_others_do_not() {
        let way = way(10);
        for (one, left) in way.iter().enumerate() {
            assert_eq!(left.place(), Place(one as u64));
            assert_eq!(left.place().generation(), left.generation());
            assert_eq!(left.cluster(), way[0].cluster(), "the cluster stays");
            for (other, right) in way.iter().enumerate() {
                let both = left.understands(right) && right.understands(left);
                let near = one.abs_diff(other) <= 1;
                assert!(both || !near, "{one} and {other}");
                assert!(!both || one.abs_diff(other) <= 2, "{one} and {other}");
            }
        }
        // Two places apart one of both is deaf, wherever they are.
        assert!(!way[0].understands(&way[2]) && !way[3].understands(&way[1]));
    }

    #[test]
    fn what_was_dropped_is_accepted_no_more() {
        let way = way(7);
        assert!(way[3].accepted().all(|secret| secret != way[0].sent()));
        assert_eq!(way[3].accepted().count(), 1);
        assert!(!way[3].understands(&way[0]) && !way[3].understands(&way[1]));
    }

    #[test]
    fn a_rotation_needs_another_secret() {
        let keys = Keys::first(&[1; 32]);
        assert_eq!(keys.step(None), None);
        assert_eq!(keys.step(Some(Secret([1; 32]))), None);
    }

    #[test]
    fn a_secret_is_not_printed() {
        let keys = Keys::first(&[0xAB; 32]).step(Some(Secret([0xCD; 32])));
        let text = std::format!("{keys:?}").to_lowercase();
        assert!(!text.contains("171") && !text.contains("205"), "{text}");
        assert!(!text.contains("abab") && !text.contains("cdcd"), "{text}");
    }
}
