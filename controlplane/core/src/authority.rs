//! How all members of a cluster come from one authority to the next: both nodes, and the witness if there is one.
//!
//! Everybody trusts what the authority signed, and shows a certificate of it. From one authority to the next each member goes
//! three steps: it trusts the next one as well, it shows a certificate of that one, it trusts the last one no more. Members
//! understand each other while they are at most one step apart. So the node that has the authority's key *leads*: it goes a step
//! further when all the others stand where it stands, and moves them to where it stands then. A member *stands* somewhere when
//! that is durable there and its connections go by it from then on. Members never go back, so what was heard late is true still.
//!
//! Nothing is remembered here: where each stands is what it trusts and shows. A member that is away, or was not heard, holds the
//! next step up.

use alloc::vec::Vec;

use thiserror::Error;

/// Names an authority: of its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Print(pub [u8; 16]);

/// Where a member stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// One authority is trusted, and shown.
    Settled(Print),
    /// Both are trusted, the last one is shown.
    Trusts {
        /// The last one.
        last: Print,
        /// The next one.
        next: Print,
    },
    /// Both are trusted, the next one is shown.
    Shows {
        /// The last one.
        last: Print,
        /// The next one.
        next: Print,
    },
}

impl Standing {
    /// Of those who are trusted, the last one first, and of who signed what is shown. A witness may show a certificate of
    /// nobody: then it shows what its nodes know it by.
    #[must_use]
    pub fn of(trusted: &[Print], shown: Option<Print>) -> Option<Self> {
        match *trusted {
            [one] if shown.is_none_or(|shown| shown == one) => Some(Self::Settled(one)),
            [last, next] if last == next => None,
            [last, next] if shown.is_none_or(|shown| shown == last) => {
                Some(Self::Trusts { last, next })
            }
            [last, next] if shown == Some(next) => Some(Self::Shows { last, next }),
            _ => None,
        }
    }

    /// The step after this one; the first one of a change needs the next authority.
    #[must_use]
    pub fn step(self, new: Option<Print>) -> Option<Self> {
        match self {
            Self::Settled(last) => {
                let next = new.filter(|next| *next != last)?;
                Some(Self::Trusts { last, next })
            }
            Self::Trusts { last, next } => Some(Self::Shows { last, next }),
            Self::Shows { next, .. } => Some(Self::Settled(next)),
        }
    }

    /// Nothing is under way.
    #[must_use]
    pub fn is_settled(self) -> bool {
        matches!(self, Self::Settled(_))
    }

    /// Whose certificate is shown.
    #[must_use]
    pub fn shown(self) -> Print {
        match self {
            Self::Settled(one) | Self::Trusts { last: one, .. } | Self::Shows { next: one, .. } => {
                one
            }
        }
    }

    /// Whether a certificate of this authority is accepted.
    #[must_use]
    pub fn trusts(self, print: Print) -> bool {
        match self {
            Self::Settled(one) => one == print,
            Self::Trusts { last, next } | Self::Shows { last, next } => {
                last == print || next == print
            }
        }
    }

    /// The authority that comes next, while it does.
    #[must_use]
    pub fn next(self) -> Option<Print> {
        match self {
            Self::Settled(_) => None,
            Self::Trusts { next, .. } | Self::Shows { next, .. } => Some(next),
        }
    }

    /// Whether each accepts what the other one shows.
    #[must_use]
    pub fn understands(self, other: Self) -> bool {
        self.trusts(other.shown()) && other.trusts(self.shown())
    }

    /// Whether `other` is the step after this one.
    #[must_use]
    pub fn is_before(self, other: Self) -> bool {
        self.step(other.next()) == Some(other)
    }
}

/// A member is at another place than one before the leading node: somebody put files in place, or it was put back from a
/// copy. It carries the member's place in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a member stands elsewhere")]
pub struct Elsewhere(pub usize);

/// What the leading node does next. Members are meant by their place in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// These are moved to where the leading node stands.
    Move(Vec<usize>),
    /// These have to be heard first.
    Await(Vec<usize>),
    /// The leading node itself goes here.
    Go(Standing),
    /// All stand where it stands, and nothing is under way.
    Idle,
}

/// What the leading node does next: where it stands, and where each other member was heard to stand. `new`: the next authority,
/// if a change is wanted and has not begun.
///
/// # Errors
/// [`Elsewhere`]. Nothing is done then: whom it concerns may be unable to talk with the others already.
pub fn next(
    own: Standing,
    others: &[Option<Standing>],
    new: Option<Print>,
) -> Result<Next, Elsewhere> {
    let mut behind = Vec::new();
    let mut unheard = Vec::new();
    for (place, other) in others.iter().enumerate() {
        match other {
            None => unheard.push(place),
            Some(other) if *other == own => {}
            Some(other) if other.is_before(own) => behind.push(place),
            Some(_) => return Err(Elsewhere(place)),
        }
    }
    Ok(if !behind.is_empty() {
        Next::Move(behind)
    } else if own.is_settled() && new.is_none() {
        Next::Idle
    } else if !unheard.is_empty() {
        Next::Await(unheard)
    } else {
        own.step(new).map_or(Next::Idle, Next::Go)
    })
}

/// What a member does that is to stand at `wanted`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// It stands there.
    Stand,
    /// It goes there.
    Go,
}

/// What a member does that is to stand at `wanted`: one step at most. `None`: it does not go there.
#[must_use]
pub fn follow(own: Standing, wanted: Standing) -> Option<Follow> {
    if own == wanted {
        Some(Follow::Stand)
    } else if own.is_before(wanted) {
        Some(Follow::Go)
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
