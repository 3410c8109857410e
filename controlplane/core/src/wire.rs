//! The bytes of a heartbeat; docs/controlplane.md has the table.
//!
//! One UDP datagram of 160 bytes, little endian, the last 32 a keyed BLAKE3 over the rest. It carries nothing that a
//! decision about data rests on: who is alive, and since which boot; and what operators wish ([`crate::wish`]), one wish at a
//! time.

use core::time::Duration;

use mirror_core::auth::cluster_id;
use mirror_core::keys::{Keys, Place, Secret};
use mirror_core::types::{BootId, ClusterId, Incarnation, Instant, NodeId};
use thiserror::Error;

use crate::self_fencing::ClearGroups;
use crate::timeouts::{Factor, LASTS_MAX, Over, Told, Word};
use crate::wish::{GroupKey, Origin, Saying, Subject, Want, Why, Wish};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a heartbeat.
pub const HEARTBEAT_BYTES: usize = 160;
const SIGNED_BYTES: usize = 128;
/// "LSHB".
const MAGIC: u32 = u32::from_le_bytes(*b"LSHB");
/// Version of the layout. A node of version N also reads N-1.
const VERSION: u16 = 1;
const KEY_CONTEXT: &str = "lockstep 2026-11 heartbeat authentication";

/// Why a datagram is no heartbeat of this cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeartbeatError {
    /// Another length.
    #[error("{0} bytes, not {HEARTBEAT_BYTES}")]
    Length(usize),
    /// No heartbeat.
    #[error("no heartbeat of Lockstep")]
    Magic,
    /// Of a release that this one does not understand.
    #[error("a heartbeat of layout {0}, this node reads {VERSION}")]
    Version(u16),
    /// Of another cluster, or forged.
    #[error("not signed with the key of this cluster")]
    Signature,
    /// Signed, and nonsense.
    #[error("signed, but it names a node that cannot exist")]
    Node,
}

/// What a heartbeat says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Who sends it.
    pub from: NodeId,
    /// To whom.
    pub to: NodeId,
    /// On which path, from 0.
    pub path: u8,
    /// Whether the sender's user space stood still since its last heartbeat on any path.
    pub stood_still: bool,
    /// The boot of the sender's machine.
    pub boot: BootId,
    /// The run of the sender's daemon.
    pub incarnation: Incarnation,
    /// Counts the sender's heartbeats of this run on this path, from 1.
    pub sequence: u64,
    /// When it was sent, by the sender's clock.
    pub sent: Instant,
    /// The run of the receiver that the sender last heard on this path; 0: none.
    pub echoed_incarnation: Incarnation,
    /// When that heartbeat was sent, by the receiver's clock.
    pub echoed_sent: Instant,
    /// How long the sender had it, nanoseconds.
    pub held_nanos: u64,
    /// What operators wish, as far as it is durable at the sender.
    pub saying: Saying,
    /// Groups of which nothing is left at the sender. A release that does not know this says none.
    pub clear: ClearGroups,
    /// How long the sender waits, and what operators said of that. A word takes the place of a wish.
    pub timeouts: Told,
}

#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    magic: U32,
    version: U16,
    from: u8,
    to: u8,
    path: u8,
    flags: u8,
    clear: [u8; 6],
    cluster: [u8; 16],
    boot: [u8; 16],
    incarnation: U64,
    sequence: U64,
    sent_nanos: U64,
    echoed_incarnation: U64,
    echoed_sent_nanos: U64,
    held_nanos: U64,
    wish: RawWish,
    wishes: U64,
    signature: [u8; 32],
}

const _: () = assert!(size_of::<Raw>() == HEARTBEAT_BYTES);

/// Bytes of a wish.
const WISH_BYTES: usize = 24;

/// A wish; all 0 is none.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct RawWish {
    about: U64,
    number: U64,
    kind: u8,
    by: u8,
    want: u8,
    node: u8,
    origin: u8,
    reserved: [u8; 3],
}

const _: () = assert!(size_of::<RawWish>() == WISH_BYTES);

const KIND_NONE: u8 = 0;
const KIND_GROUP: u8 = 1;
const KIND_FAILURES: u8 = 2;
const KIND_NODE: u8 = 3;
/// No wish, but a word about timeouts. A release before this one leaves it out.
const KIND_TIMEOUTS: u8 = 4;
/// In [`RawWish::reserved`]: the promise, and the lease. A release before this one says 0, and does not look.
const WAITS: usize = 0;
const LEASE: usize = 1;
/// What a node says by itself. A release before this one takes it for an operator's word: of the same, or of a group that nobody
/// has ([`FAILED_THERE`]). So it reads what this one has left on the disk.
const SAID_BY: usize = 2;
const BY_ITSELF: u8 = 1;
const OF_ITSELF: u8 = 2;
/// XORed with the group, of what a node says of itself.
const FAILED_THERE: u64 = u64::from_le_bytes(*b"failedon");
/// In [`RawWish::node`].
const NO_NODE: u8 = 255;

const WANTS: [(u8, u8); 6] = [
    (KIND_GROUP, 0),
    (KIND_GROUP, 1),
    (KIND_GROUP, 2),
    (KIND_FAILURES, 0),
    (KIND_NODE, 0),
    (KIND_NODE, 1),
];
const ORIGINS: [Origin; 7] = [
    Origin::Operator,
    Origin::Arrived,
    Origin::InVain(Why::NotReady),
    Origin::InVain(Why::InUse),
    Origin::InVain(Why::StopFailed),
    Origin::InVain(Why::NotBegun),
    Origin::InVain(Why::StartFailed),
];
/// Beside the others. A release before this one leaves such a wish out.
const ORIGIN_TOGETHER: u8 = 8;

fn origin_of(number: u8) -> Option<Origin> {
    match number {
        ORIGIN_TOGETHER => Some(Origin::Together),
        number => ORIGINS.get(usize::from(number)).copied(),
    }
}

/// What a node says by itself is told from a person's word by [`SAID_BY`] alone.
fn number_of(origin: Origin) -> u8 {
    match origin {
        Origin::Operator | Origin::Node => 0,
        Origin::Arrived => 1,
        Origin::InVain(Why::NotReady) => 2,
        Origin::InVain(Why::InUse) => 3,
        Origin::InVain(Why::StopFailed) => 4,
        Origin::InVain(Why::NotBegun) => 5,
        Origin::InVain(Why::StartFailed) => 6,
        Origin::Together => ORIGIN_TOGETHER,
    }
}

impl RawWish {
    fn new(wish: &Wish) -> Self {
        let about = match wish.subject {
            Subject::Group(group) | Subject::Failures(group) => group.0,
            Subject::Failed(group, _) => group.0 ^ FAILED_THERE,
            Subject::Node(node) => u64::from(node.number()),
        };
        let there = match wish.subject {
            Subject::Failed(_, node) => node.number(),
            Subject::Group(_) | Subject::Failures(_) | Subject::Node(_) => NO_NODE,
        };
        let number = |node: Option<NodeId>| node.map_or(NO_NODE, NodeId::number);
        let ((kind, want), node) = match wish.want {
            Want::Runs { home } => (WANTS[0], number(home)),
            Want::Stopped { home } => (WANTS[1], number(home)),
            Want::Moves { to } => (WANTS[2], to.number()),
            Want::Forgotten => (WANTS[3], NO_NODE),
            Want::Resumed => (WANTS[4], NO_NODE),
            Want::Suspended => (WANTS[5], NO_NODE),
            Want::Mended => (WANTS[0], there),
            Want::Failed => (WANTS[1], there),
        };
        let by_itself = match (wish.subject, wish.origin) {
            (Subject::Failed(..), _) => OF_ITSELF,
            (_, Origin::Node) => BY_ITSELF,
            (_, Origin::Operator | Origin::Together | Origin::Arrived | Origin::InVain(_)) => 0,
        };
        let mut reserved = [0; 3];
        reserved[SAID_BY] = by_itself;
        Self {
            about: about.into(),
            number: wish.number.into(),
            kind,
            by: wish.by.number(),
            want,
            node,
            origin: number_of(wish.origin),
            reserved,
        }
    }

    fn word(word: &Word) -> Self {
        let over = match word.over {
            None => 0,
            Some(Over::Time) => 1,
            Some(Over::Reboot) => 2,
        };
        let lasts = u32::try_from(word.lasts.as_secs()).unwrap_or(u32::MAX);
        let about = u64::from(lasts) << 8 | u64::from(word.factor.tenths());
        Self {
            about: about.into(),
            number: word.number.into(),
            kind: KIND_TIMEOUTS,
            by: word.by.number(),
            want: over,
            ..NO_WISH
        }
    }

    /// `None` if it is a wish, or of a later release.
    fn as_word(&self) -> Option<Word> {
        let [tenths, lasts @ .., _, _, _] = self.about.get().to_le_bytes();
        let lasts = Duration::from_secs(u32::from_le_bytes(lasts).into());
        let over = match self.want {
            0 => None,
            1 => Some(Over::Time),
            2 => Some(Over::Reboot),
            _ => return None,
        };
        let word = Word {
            number: self.number.get(),
            by: NodeId::new(self.by)?,
            factor: Factor::of_tenths(tenths)?,
            lasts,
            over,
        };
        (self.kind == KIND_TIMEOUTS && lasts <= LASTS_MAX).then_some(word)
    }

    /// `None` also for one of a later release: the heartbeat counts all the same.
    fn wish(&self) -> Option<Wish> {
        let about = self.about.get();
        let node = NodeId::new(self.node);
        if node.is_none() && self.node != NO_NODE {
            return None;
        }
        let said_by = self.reserved[SAID_BY];
        let subject = match self.kind {
            KIND_GROUP if said_by == OF_ITSELF => {
                Subject::Failed(GroupKey(about ^ FAILED_THERE), node?)
            }
            KIND_GROUP => Subject::Group(GroupKey(about)),
            KIND_FAILURES => Subject::Failures(GroupKey(about)),
            KIND_NODE => Subject::Node(NodeId::new(u8::try_from(about).ok()?)?),
            _ => return None,
        };
        let want = match (self.kind, self.want) {
            (KIND_GROUP, 0) if said_by == OF_ITSELF => Want::Mended,
            (KIND_GROUP, 1) if said_by == OF_ITSELF => Want::Failed,
            (KIND_GROUP, _) if said_by == OF_ITSELF => return None,
            (KIND_GROUP, 0) => Want::Runs { home: node },
            (KIND_GROUP, 1) => Want::Stopped { home: node },
            (KIND_GROUP, 2) => Want::Moves { to: node? },
            (KIND_FAILURES, 0) => Want::Forgotten,
            (KIND_NODE, 0) => Want::Resumed,
            (KIND_NODE, 1) => Want::Suspended,
            _ => return None,
        };
        let origin = origin_of(self.origin)?;
        Some(Wish {
            subject,
            number: self.number.get(),
            by: NodeId::new(self.by)?,
            want,
            origin: match (said_by, origin) {
                (0, origin) => origin,
                (BY_ITSELF | OF_ITSELF, Origin::Operator) => Origin::Node,
                _ => return None,
            },
        })
    }
}

/// A wish as it is sent; the same on every node.
pub fn wish_bytes(wish: &Wish) -> [u8; WISH_BYTES] {
    let mut bytes = [0; WISH_BYTES];
    bytes.copy_from_slice(RawWish::new(wish).as_bytes());
    bytes
}

/// The wish that these bytes are; `None` if they are none that this release knows.
pub fn wish_of(bytes: &[u8]) -> Option<Wish> {
    RawWish::read_from_bytes(bytes).ok()?.wish()
}

/// A word about timeouts, as it is sent and kept.
pub fn word_bytes(word: &Word) -> [u8; WISH_BYTES] {
    let mut bytes = [0; WISH_BYTES];
    bytes.copy_from_slice(RawWish::word(word).as_bytes());
    bytes
}

/// The word that these bytes are; `None` if they are none that this release knows.
pub fn word_of(bytes: &[u8]) -> Option<Word> {
    RawWish::read_from_bytes(bytes).ok()?.as_word()
}

fn told(heartbeat: &Heartbeat) -> RawWish {
    let wish = heartbeat.saying.wish.as_ref().map_or(NO_WISH, RawWish::new);
    let mut raw = heartbeat.timeouts.word.as_ref().map_or(wish, RawWish::word);
    let tenths = |factor: Option<Factor>| factor.map_or(0, Factor::tenths);
    raw.reserved[WAITS] = tenths(heartbeat.timeouts.waits);
    raw.reserved[LEASE] = tenths(heartbeat.timeouts.lease);
    raw
}

fn clear_bytes(clear: ClearGroups) -> [u8; 6] {
    let [a, b, c, d, e, f, _, _] = clear.bits().to_le_bytes();
    [a, b, c, d, e, f]
}

fn clear_groups([a, b, c, d, e, f]: [u8; 6]) -> ClearGroups {
    ClearGroups::from_bits(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
}

const FLAG_STOOD_STILL: u8 = 1;
const NO_WISH: RawWish = RawWish {
    about: U64::ZERO,
    number: U64::ZERO,
    kind: KIND_NONE,
    by: 0,
    want: 0,
    node: 0,
    origin: 0,
    reserved: [0; 3],
};

/// Signs and checks; made from the cluster's key.
#[derive(Clone)]
pub struct HeartbeatKey {
    key: [u8; 32],
    cluster: ClusterId,
}

impl core::fmt::Debug for HeartbeatKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "HeartbeatKey({})", self.cluster)
    }
}

impl HeartbeatKey {
    /// From the 32 bytes of the key of a cluster that never rotated it.
    pub fn new(cluster_key: &[u8; 32]) -> Self {
        Self::of(&Secret::new(*cluster_key), cluster_id(cluster_key))
    }

    /// From one of a cluster's secrets.
    pub fn of(secret: &Secret, cluster: ClusterId) -> Self {
        Self {
            key: blake3::derive_key(KEY_CONTEXT, secret.bytes()),
            cluster,
        }
    }

    /// The bytes of a heartbeat.
    pub fn encode(&self, heartbeat: &Heartbeat) -> [u8; HEARTBEAT_BYTES] {
        let mut raw = Raw {
            magic: MAGIC.into(),
            version: VERSION.into(),
            from: heartbeat.from.number(),
            to: heartbeat.to.number(),
            path: heartbeat.path,
            flags: if heartbeat.stood_still {
                FLAG_STOOD_STILL
            } else {
                0
            },
            clear: clear_bytes(heartbeat.clear),
            cluster: self.cluster.0,
            boot: heartbeat.boot.0,
            incarnation: heartbeat.incarnation.0.into(),
            sequence: heartbeat.sequence.into(),
            sent_nanos: heartbeat.sent.as_nanos().into(),
            echoed_incarnation: heartbeat.echoed_incarnation.0.into(),
            echoed_sent_nanos: heartbeat.echoed_sent.as_nanos().into(),
            held_nanos: heartbeat.held_nanos.into(),
            wish: told(heartbeat),
            wishes: heartbeat.saying.digest.into(),
            signature: [0; 32],
        };
        raw.signature = self.sign(&raw);
        let mut bytes = [0; HEARTBEAT_BYTES];
        bytes.copy_from_slice(raw.as_bytes());
        bytes
    }

    fn sign(&self, raw: &Raw) -> [u8; 32] {
        *blake3::keyed_hash(&self.key, &raw.as_bytes()[..SIGNED_BYTES]).as_bytes()
    }

    /// The heartbeat in a datagram. Whether it is new is another question: [`crate::membership`].
    ///
    /// # Errors
    ///
    /// [`HeartbeatError`]; nothing of the datagram may be used then.
    pub fn decode(&self, bytes: &[u8]) -> Result<Heartbeat, HeartbeatError> {
        let raw = Raw::read_from_bytes(bytes).map_err(|_| HeartbeatError::Length(bytes.len()))?;
        if raw.magic.get() != MAGIC {
            return Err(HeartbeatError::Magic);
        }
        if raw.version.get() != VERSION {
            return Err(HeartbeatError::Version(raw.version.get()));
        }
        let signature = blake3::Hash::from_bytes(self.sign(&raw));
        if signature != blake3::Hash::from_bytes(raw.signature) || raw.cluster != self.cluster.0 {
            return Err(HeartbeatError::Signature);
        }
        let (Some(from), Some(to)) = (NodeId::new(raw.from), NodeId::new(raw.to)) else {
            return Err(HeartbeatError::Node);
        };
        Ok(Heartbeat {
            from,
            to,
            path: raw.path,
            stood_still: raw.flags & FLAG_STOOD_STILL != 0,
            boot: BootId(raw.boot),
            incarnation: Incarnation(raw.incarnation.get()),
            sequence: raw.sequence.get(),
            sent: Instant::from_nanos(raw.sent_nanos.get()),
            echoed_incarnation: Incarnation(raw.echoed_incarnation.get()),
            echoed_sent: Instant::from_nanos(raw.echoed_sent_nanos.get()),
            held_nanos: raw.held_nanos.get(),
            saying: Saying {
                wish: raw.wish.wish(),
                digest: raw.wishes.get(),
            },
            clear: clear_groups(raw.clear),
            timeouts: Told {
                waits: Factor::of_tenths(raw.wish.reserved[WAITS]),
                lease: Factor::of_tenths(raw.wish.reserved[LEASE]),
                word: raw.wish.as_word(),
            },
        })
    }
}

/// What a node signs heartbeats with, and all that it accepts: two while the cluster's secret is rotated.
#[derive(Debug)]
pub struct HeartbeatKeys {
    place: Place,
    sent: HeartbeatKey,
    other: Option<HeartbeatKey>,
}

impl HeartbeatKeys {
    /// From the cluster's secrets.
    pub fn new(keys: &Keys) -> Self {
        let cluster = keys.cluster();
        let mut accepted = keys.accepted();
        accepted.next();
        Self {
            place: keys.place(),
            sent: HeartbeatKey::of(keys.sent(), cluster),
            other: accepted
                .next()
                .map(|secret| HeartbeatKey::of(secret, cluster)),
        }
    }

    /// How far the secrets have come.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The bytes of a heartbeat, signed with what is sent.
    pub fn encode(&self, heartbeat: &Heartbeat) -> [u8; HEARTBEAT_BYTES] {
        self.sent.encode(heartbeat)
    }

    /// The heartbeat in a datagram, if it is signed with what is accepted.
    ///
    /// # Errors
    ///
    /// [`HeartbeatError`]; nothing of the datagram may be used then.
    pub fn decode(&self, bytes: &[u8]) -> Result<Heartbeat, HeartbeatError> {
        match (self.sent.decode(bytes), &self.other) {
            (Err(HeartbeatError::Signature), Some(other)) => other.decode(bytes),
            (decoded, _) => decoded,
        }
    }
}

#[cfg(test)]
mod tests;
