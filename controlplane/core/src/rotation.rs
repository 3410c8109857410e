//! How both nodes come from one secret of the cluster to the next ([`mirror_core::keys`] has the steps).
//!
//! Nodes understand each other while they are at most one step apart. So the first node by number *leads*: it goes a step further
//! when the other one stands where it stands; the other one *follows* when the first one stands a step before it. A node stands
//! somewhere when that is durable there, and everything on it goes by it: the heartbeats, and the daemons of the volumes. Places
//! never fall, so what was heard late is true still, and nothing is lost by a crash, a lost message or a partition: who is behind
//! is told again.
//!
//! The first node alone makes secrets, so that two operators at once make one.
//!
//! The shell calls [`Rotation::handle`] with one event after the other, and reports each [`Effect::Save`] before the next event.

use alloc::vec::Vec;

use mirror_core::keys::{Keys, Other, Prints, Secret};
use mirror_core::types::NodeId;
use thiserror::Error;

/// Which part a node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// It goes first.
    Leads,
    /// It goes after the other one.
    Follows,
}

impl Part {
    /// Of this node: the first one by number leads.
    #[must_use]
    pub fn of(me: NodeId) -> Self {
        if me.number() == 0 {
            Self::Leads
        } else {
            Self::Follows
        }
    }
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// An operator wants another secret: this one.
    Begin(Secret),
    /// The other node stands there, and tells the secret that it accepts from now on, if it leads and that is new.
    Heard(Prints, Option<Secret>),
    /// What was to be saved is durable.
    Saved,
    /// It may be, or not.
    NotSaved,
    /// Everything on this node goes by what is durable.
    Adopted,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Make this durable, then report.
    Save(Keys),
    /// Let everything on this node go by this, and report when it does.
    Adopt(Keys),
}

/// Why nothing follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Error)]
pub enum Why {
    /// A report that nobody waits for, or an event before the report: a fault of the shell.
    #[error("out of turn")]
    OutOfTurn,
    /// This node makes no secrets.
    #[error("the other node leads")]
    Follows,
    /// A rotation is under way, or it is not known yet that none is.
    #[error("a rotation is under way")]
    UnderWay,
    /// The nodes have different secrets, or are more than a step apart: somebody put a file in place.
    #[error("the nodes have different secrets")]
    Differ,
    /// The secret is the present one, or no generation is left.
    #[error("the secret cannot be used")]
    Unfit,
}

/// One node's part.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rotation {
    part: Part,
    durable: Keys,
    /// Everything here goes by what is durable.
    stands: bool,
    saving: Option<Keys>,
    /// The other node was heard to stand where this one stands.
    level: bool,
    /// A step may be on the disk that is not known to be durable.
    unsure: bool,
}

impl Rotation {
    /// A run begins with what is durable. What goes on from earlier runs may go by what was durable before: it is told.
    #[must_use]
    pub fn new(part: Part, durable: Keys, effects: &mut Vec<Effect>) -> Self {
        effects.push(Effect::Adopt(durable));
        Self {
            part,
            durable,
            stands: false,
            saving: None,
            level: false,
            unsure: false,
        }
    }

    /// What is durable.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.durable
    }

    /// This node's part.
    #[must_use]
    pub fn part(&self) -> Part {
        self.part
    }

    /// What is to be told the other node; `None` while this node is between two places.
    #[must_use]
    pub fn says(&self) -> Option<(Prints, Option<Secret>)> {
        let new = match (self.part, self.durable.other()) {
            (Part::Leads, Other::Next(secret)) => Some(*secret),
            (Part::Leads, Other::None | Other::Last(_)) | (Part::Follows, _) => None,
        };
        self.stands.then(|| (self.durable.prints(), new))
    }

    /// Whether both nodes are known to go by one secret, and nothing is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.stands && self.level && !self.unsure && self.durable.place().is_settled()
    }

    /// Whether a step may be on the disk that is not known to be durable.
    #[must_use]
    pub fn is_unsure(&self) -> bool {
        self.unsure
    }

    /// Takes one event.
    ///
    /// # Errors
    /// [`Why`]; nothing is changed then.
    pub fn handle(&mut self, event: Event, effects: &mut Vec<Effect>) -> Result<(), Why> {
        match (event, self.saving) {
            (Event::Saved, Some(keys)) => {
                (self.durable, self.saving) = (keys, None);
                (self.stands, self.level, self.unsure) = (false, false, false);
                effects.push(Effect::Adopt(keys));
                Ok(())
            }
            // Whichever is on the disk, the other node understands it. It is tried again.
            (Event::NotSaved, Some(_)) => {
                (self.saving, self.unsure) = (None, true);
                Ok(())
            }
            (Event::Adopted, None) => {
                self.stands = true;
                Ok(())
            }
            (Event::Begin(secret), None) => self.begin(secret, effects),
            (Event::Heard(prints, new), None) => self.heard(&prints, new, effects),
            (Event::Saved | Event::NotSaved, None)
            | (Event::Adopted | Event::Begin(_) | Event::Heard(..), Some(_)) => Err(Why::OutOfTurn),
        }
    }

    fn begin(&mut self, secret: Secret, effects: &mut Vec<Effect>) -> Result<(), Why> {
        match self.part {
            Part::Follows => Err(Why::Follows),
            Part::Leads if !self.is_idle() => Err(Why::UnderWay),
            Part::Leads => self.step(Some(secret), effects),
        }
    }

    fn heard(
        &mut self,
        other: &Prints,
        new: Option<Secret>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Why> {
        if !self.stands {
            return Ok(());
        }
        let own = self.durable.prints();
        if *other == own {
            self.level = true;
            return match self.part {
                Part::Leads if !own.place.is_settled() => self.step(None, effects),
                // Nobody else knows what may be on the disk: a rotation that did not begin.
                Part::Leads | Part::Follows if self.unsure => {
                    self.save(self.durable, effects);
                    Ok(())
                }
                Part::Leads | Part::Follows => Ok(()),
            };
        }
        match self.part {
            // The other one is told, and follows; or this is late, and from before the last step.
            Part::Leads | Part::Follows if other.place.0 + 1 == own.place.0 => Ok(()),
            Part::Leads => Err(Why::Differ),
            Part::Follows => {
                let next = self.durable.step(new).ok_or(Why::Differ)?;
                if next.prints() != *other {
                    return Err(Why::Differ);
                }
                self.save(next, effects);
                Ok(())
            }
        }
    }

    fn step(&mut self, new: Option<Secret>, effects: &mut Vec<Effect>) -> Result<(), Why> {
        let next = self.durable.step(new).ok_or(Why::Unfit)?;
        self.save(next, effects);
        Ok(())
    }

    fn save(&mut self, keys: Keys, effects: &mut Vec<Effect>) {
        self.saving = Some(keys);
        effects.push(Effect::Save(keys));
    }
}

#[cfg(test)]
mod tests;
