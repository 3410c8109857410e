//! The view: who serves the volume and whose copy counts, and its history.

use crate::limits::VIEW_HISTORY_MAX;
use crate::types::{Epoch, NodeId, NodeSet, ViewId};

/// The configuration of a volume (DESIGN §3). Changed only as a whole, never edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Grows with every change.
    pub epoch: Epoch,
    /// Random: equal epochs of diverged histories differ here.
    pub id: ViewId,
    /// Who serves the volume.
    pub active: Option<NodeId>,
    /// Whose copies hold every acknowledged write.
    pub insync: NodeSet,
}

impl View {
    /// Whether `node`'s copy counts and no other does.
    pub fn is_sole(&self, node: NodeId) -> bool {
        self.insync == NodeSet::only(node)
    }

    /// Whether who serves has a copy that counts, or nobody serves. Otherwise its disk failed, and the other copy
    /// alone counts.
    pub fn active_counts(&self) -> bool {
        self.active
            .is_none_or(|active| self.insync.contains(active))
    }

    /// This view's mark in a history.
    pub fn mark(&self) -> ViewMark {
        ViewMark {
            epoch: self.epoch,
            id: self.id,
        }
    }
}

/// What a history keeps of a view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ViewMark {
    /// Its epoch; 0 marks an empty place.
    pub epoch: Epoch,
    /// Its id.
    pub id: ViewId,
}

/// The views before the present one, newest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ViewHistory(pub [ViewMark; VIEW_HISTORY_MAX]);

impl ViewHistory {
    /// Puts `mark` in front; the oldest falls out.
    pub fn push(&mut self, mark: ViewMark) {
        self.0.rotate_right(1);
        self.0[0] = mark;
    }

    /// Whether `mark` is remembered.
    pub fn contains(&self, mark: ViewMark) -> bool {
        mark.epoch != Epoch(0) && self.0.contains(&mark)
    }

    /// Whether any view of `other` is remembered here too.
    pub fn shares_with(&self, other: &Self) -> bool {
        other.0.iter().any(|mark| self.contains(*mark))
    }
}
