//! What operators wish: that a group runs, is stopped or moves, that a node takes nothing over, that failures are forgotten.
//!
//! Each subject has one wish at a time. A wish has a number above every number that its node knew, and names that node:
//! of two the higher number rules, and of equal numbers the higher node, so that both nodes come to the same one,
//! whatever order they hear of them in. A person's number is two above all that his node knew, a node's own word about a group is
//! one above the wish of that group, which the other node knows as well: so whatever a person says at the same moment rules over it.
//! What a node says of itself (a group failed there) is a subject of its own, about which nobody else says anything. What comes of a move keeps the move's number and node, and rules over that move
//! alone: whatever a person wishes meanwhile is above it. A node acts on a wish when it is durable there, and tells it from then on, in its
//! heartbeats ([`Teller`]). A wish lets nobody decide alone: it only keeps a node from doing what it otherwise would, or
//! says who begins where both agree.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use mirror_core::types::NodeId;

use crate::mutant::{self, Mutant};

/// A group, by its name: the first 8 bytes of the name's BLAKE3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupKey(pub u64);

impl GroupKey {
    /// Of the group with this name.
    pub fn of(name: &str) -> Self {
        Self(first_bytes(name.as_bytes()))
    }

    /// Under this key a node that said that the group failed on it says [`Want::Mended`] with a higher number, if only a monitor
    /// failed there: of resources it does not fail. So a release that does not know that word takes the failure for one of a
    /// resource, and agrees all the same.
    #[must_use]
    pub fn of_resources(self) -> Self {
        Self(self.0 ^ OF_RESOURCES)
    }
}

/// See [`GroupKey::of_resources`].
const OF_RESOURCES: u64 = u64::from_le_bytes(*b"resource");

/// What a wish is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// Whether and where a group runs.
    Group(GroupKey),
    /// That a group's failures are forgotten: a person says so.
    Failures(GroupKey),
    /// Whether a group failed on a node: that node says so.
    Failed(GroupKey, NodeId),
    /// Whether a node takes groups over.
    Node(NodeId),
}

/// What is wished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// The group runs; where nobody serves it, this node begins.
    Runs {
        /// `None`: the one that is preferred by configuration.
        home: Option<NodeId>,
    },
    /// The group runs nowhere; that node begins when it is started again.
    Stopped {
        /// Where it ran.
        home: Option<NodeId>,
    },
    /// The group runs, and shall run there.
    Moves {
        /// Where.
        to: NodeId,
    },
    /// What failed is forgotten.
    Forgotten,
    /// It failed there, and waits to be cleared.
    Failed,
    /// It does not: it was cleared there, or runs there again.
    Mended,
    /// The node takes nothing over, and nothing is moved to it.
    Suspended,
    /// It does again.
    Resumed,
}

/// What is known of a group's failure on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It did not fail there, or that is over.
    None,
    /// It failed there; that was forgotten since, and that node has not said yet that it did so.
    Forgotten,
    /// Only a monitor failed there, and the group waits there to be cleared.
    Monitor,
    /// It failed there, and waits to be cleared.
    Stands,
}

impl Failure {
    /// Whether it waits there to be cleared.
    pub fn stands(self) -> bool {
        match self {
            Self::Monitor | Self::Stands => true,
            Self::None | Self::Forgotten => false,
        }
    }
}

/// Who said so, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A person.
    Operator,
    /// A node by itself, because the group failed there ([`crate::failing`]).
    Node,
    /// A person, of the whole cluster at once: what ends that ends it for these alone.
    Together,
    /// The node to which a group moved serves it.
    Arrived,
    /// The node from which a group should move keeps it.
    InVain(Why),
}

impl Origin {
    /// Of two that settle the same move, the higher one is what both nodes come to.
    fn rank(self) -> u8 {
        match self {
            Self::Operator | Self::Together | Self::Node => 0,
            Self::InVain(why) => 1 + why as u8,
            Self::Arrived => u8::MAX,
        }
    }
}

/// Why a move came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The other node was not there, or its copy did not count.
    NotReady,
    /// Something that does not belong to the group holds a volume here.
    InUse,
    /// A resource did not stop.
    StopFailed,
    /// The other node did not begin.
    NotBegun,
    /// It arrived, and its resources do not start there.
    StartFailed,
}

/// Which one of all the wishes about a subject: the highest rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WishMark {
    /// See [`Wish::number`].
    pub number: u64,
    /// See [`Wish::by`].
    pub by: NodeId,
    /// 0 for an operator's; above it, what came of that.
    settled: u8,
}

impl WishMark {
    /// Of an operator's wish.
    pub fn said(number: u64, by: NodeId) -> Self {
        let settled = 0;
        Self {
            number,
            by,
            settled,
        }
    }
}

/// A wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// About what.
    pub subject: Subject,
    /// Above every number that the node knew; from 1.
    pub number: u64,
    /// Who said it.
    pub by: NodeId,
    /// What.
    pub want: Want,
    /// Why.
    pub origin: Origin,
}

impl Wish {
    /// Which one rules.
    pub fn mark(&self) -> WishMark {
        WishMark {
            number: self.number,
            by: self.by,
            settled: self.origin.rank(),
        }
    }

    /// Whether this one rules over the other one, of the same subject.
    pub fn beats(&self, other: &Self) -> bool {
        if mutant::is(Mutant::LastWishWins) {
            return self.number >= other.number && self != other;
        }
        self.mark() > other.mark()
    }

    /// That a group does not wait to be cleared is the same as no word about it: a release that does not know such words
    /// agrees with that.
    fn digest(&self) -> u64 {
        match self.want {
            Want::Mended => 0,
            Want::Runs { .. }
            | Want::Stopped { .. }
            | Want::Moves { .. }
            | Want::Forgotten
            | Want::Failed
            | Want::Suspended
            | Want::Resumed => first_bytes(&crate::wire::wish_bytes(self)),
        }
    }
}

fn first_bytes(bytes: &[u8]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&blake3::hash(bytes).as_bytes()[..8]);
    u64::from_le_bytes(first)
}

/// What to do about wishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Make exactly these durable; [`Wishes::stored`] or [`Wishes::not_stored`] with this number comes back.
    Store {
        /// To be given back.
        version: u64,
        /// All of them.
        wishes: Vec<Wish>,
    },
    /// This one is durable here: it rules from now on.
    Rules(Wish),
}

/// The wishes that a node knows.
#[derive(Debug)]
pub struct Wishes {
    me: NodeId,
    subjects: BTreeSet<Subject>,
    known: BTreeMap<Subject, Wish>,
    durable: BTreeMap<Subject, Wish>,
    version: u64,
    writing: Option<Vec<Wish>>,
}

impl Wishes {
    /// About these groups and nodes, as they were durable. Wishes about anything else are nobody's.
    pub fn new(
        me: NodeId,
        subjects: impl IntoIterator<Item = Subject>,
        stored: impl IntoIterator<Item = Wish>,
    ) -> Self {
        let subjects: BTreeSet<Subject> = subjects.into_iter().collect();
        let mine = |wish: &Wish| subjects.contains(&wish.subject);
        let durable: BTreeMap<Subject, Wish> = stored
            .into_iter()
            .filter(mine)
            .map(|wish| (wish.subject, wish))
            .collect();
        Self {
            me,
            subjects,
            known: durable.clone(),
            durable,
            version: 0,
            writing: None,
        }
    }

    /// What rules: durable here.
    pub fn of(&self, subject: Subject) -> Option<&Wish> {
        if mutant::is(Mutant::WishBeforeDurable) {
            return self.known.get(&subject);
        }
        self.durable.get(&subject)
    }

    /// Whether this is what was wished last, of the whole cluster at once.
    pub fn is_together(&self, subject: Subject) -> bool {
        let newest = self.newest(subject);
        newest.is_some_and(|wish| wish.origin == Origin::Together)
    }

    /// What was wished last here, durable or not.
    pub fn newest(&self, subject: Subject) -> Option<&Wish> {
        self.known.get(&subject)
    }

    /// Of all that are durable here, as [`Teller::digest`]; `None` while there are others.
    pub fn digest(&self) -> Option<u64> {
        let digests = self.durable.values().map(Wish::digest);
        (self.known == self.durable).then(|| digests.fold(0, |all, one| all ^ one))
    }

    /// All that are durable here.
    pub fn durable(&self) -> impl Iterator<Item = &Wish> {
        self.durable.values()
    }

    /// Whether a group failed on a node, as far as it is durable here.
    pub fn failure(&self, group: GroupKey, node: NodeId) -> Failure {
        let said = self.of(Subject::Failed(group, node));
        let Some(said) = said.filter(|wish| wish.want == Want::Failed) else {
            return Failure::None;
        };
        let forgotten = self.of(Subject::Failures(group));
        let monitor = self.of(Subject::Failed(group.of_resources(), node));
        if forgotten.is_some_and(|wish| wish.number >= said.number) {
            Failure::Forgotten
        } else if monitor.is_some_and(|wish| wish.number > said.number) {
            Failure::Monitor
        } else {
            Failure::Stands
        }
    }

    /// Whether what is known about this is durable here.
    pub fn is_durable(&self, subject: Subject) -> bool {
        self.known.get(&subject) == self.durable.get(&subject)
    }

    /// Whether a node is suspended, as far as it is durable here.
    pub fn is_suspended(&self, node: NodeId) -> bool {
        let wish = self.of(Subject::Node(node));
        wish.is_some_and(|wish| wish.want == Want::Suspended)
    }

    /// Somebody on this node wishes something; what it is until it is durable, or `None` if there is no such subject.
    ///
    /// A node says something about a group by itself only as long as the other one knows all that is known here. Then its number,
    /// right above that of the wish of this group, is below whatever a person says over there at the same moment.
    pub fn say(&mut self, subject: Subject, want: Want, origin: Origin) -> Option<Wish> {
        let highest = self.known.values().map(|wish| wish.number).max();
        let (above, step) = match (origin, subject) {
            (Origin::Operator | Origin::Together, _) => (highest, 2),
            (Origin::Node, Subject::Group(_)) => (self.newest(subject).map(|wish| wish.number), 1),
            (Origin::Node | Origin::Arrived | Origin::InVain(_), _) => (highest, 1),
        };
        let wish = Wish {
            subject,
            number: above.unwrap_or(0).checked_add(step)?,
            by: self.me,
            want,
            origin,
        };
        self.subjects.contains(&subject).then(|| {
            self.known.insert(subject, wish);
            wish
        })
    }

    /// What came of this wish, if it is still the newest one that is known here.
    pub fn settle(&mut self, mark: WishMark, outcome: (Subject, Want, Origin)) {
        let (subject, want, origin) = outcome;
        if let Some(known) = self.known.get_mut(&subject)
            && known.mark() == mark
        {
            (known.want, known.origin) = (want, origin);
        }
    }

    /// The other node said this.
    pub fn hear(&mut self, wish: Wish) {
        let known = self.known.get(&wish.subject);
        let news = known.is_none_or(|known| wish.beats(known));
        if news && self.subjects.contains(&wish.subject) {
            self.known.insert(wish.subject, wish);
        }
    }

    /// What has to be made durable, if nothing is on its way. Call it after [`Self::say`] and [`Self::hear`], and again
    /// some time after [`Self::not_stored`].
    pub fn store(&mut self, effects: &mut Vec<Effect>) {
        if self.writing.is_some() || self.known == self.durable {
            return;
        }
        self.version += 1;
        let wishes: Vec<Wish> = self.known.values().copied().collect();
        self.writing = Some(wishes.clone());
        effects.push(Effect::Store {
            version: self.version,
            wishes,
        });
        if mutant::is(Mutant::WishBeforeDurable) {
            effects.extend(self.known.values().copied().map(Effect::Rules));
        }
    }

    /// They are durable.
    pub fn stored(&mut self, version: u64, effects: &mut Vec<Effect>) {
        let Some(wishes) = self.writing.take_if(|_| version == self.version) else {
            return;
        };
        for wish in wishes {
            if self.durable.insert(wish.subject, wish) != Some(wish) {
                effects.push(Effect::Rules(wish));
            }
        }
        self.store(effects);
    }

    /// They could not be made durable.
    pub fn not_stored(&mut self, version: u64) {
        self.writing.take_if(|_| version == self.version);
    }
}

/// What a heartbeat says of wishes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Saying {
    /// One that is durable at the sender.
    pub wish: Option<Wish>,
    /// Of all that are durable at the sender: equal on both nodes if they know the same.
    pub digest: u64,
}

/// Tells the wishes that are durable here, one with each round of heartbeats: the one that was learnt last every other time, so
/// that it is heard soon, and all of them in turn. It is of use in a thread that must not allocate.
#[derive(Debug)]
pub struct Teller {
    known: Vec<Wish>,
    /// Which one was learnt last.
    newest: usize,
    digest: u64,
    round: usize,
}

impl Teller {
    /// With room for the wishes of so many subjects.
    pub fn with_room(subjects: usize) -> Self {
        Self {
            known: Vec::with_capacity(subjects),
            newest: 0,
            digest: 0,
            round: 0,
        }
    }

    /// This one is durable here.
    pub fn learn(&mut self, wish: Wish) {
        let same = |known: &Wish| known.subject == wish.subject;
        if let Some(place) = self.known.iter().position(same) {
            self.digest ^= self.known[place].digest() ^ wish.digest();
            (self.known[place], self.newest) = (wish, place);
        } else if self.known.len() < self.known.capacity() {
            self.digest ^= wish.digest();
            self.newest = self.known.len();
            self.known.push(wish);
        }
    }

    /// Whether it is new here; what was heard often is not worth to be told.
    pub fn is_news(&self, wish: &Wish) -> bool {
        let known = self
            .known
            .iter()
            .find(|known| known.subject == wish.subject);
        known.is_none_or(|known| wish.beats(known))
    }

    /// Of all that are durable here.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// For the next round of heartbeats.
    pub fn say(&mut self) -> Saying {
        self.round = self.round.wrapping_add(1);
        let newest = self.known.get(self.newest);
        let turn = match self.known.len() {
            0 => None,
            count => self.known.get(self.round / 2 % count),
        };
        let wish = if self.round % 2 == 1 { newest } else { turn };
        Saying {
            wish: wish.copied().filter(|_| !mutant::is(Mutant::WishUntold)),
            digest: self.digest,
        }
    }
}

#[cfg(test)]
mod tests;
