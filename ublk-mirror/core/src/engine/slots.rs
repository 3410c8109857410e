//! The requests under way, by tag. Most events are about one of them and ask something of all: so the places that
//! are taken are known without looking at each.

use alloc::vec::Vec;

use crate::limits::QUEUE_DEPTH;
use crate::types::SectorRange;

use super::InFlight;

/// One bit for each tag.
const _: () = assert!(QUEUE_DEPTH as u32 <= u64::BITS, "a tag has no bit");

/// See the module.
#[derive(Debug)]
pub(super) struct Slots {
    places: Vec<Option<InFlight>>,
    /// A bit for each place that is taken.
    taken: u64,
}

impl Slots {
    pub(super) fn new() -> Self {
        Self {
            places: (0..QUEUE_DEPTH).map(|_| None).collect(),
            taken: 0,
        }
    }

    /// How many requests there are.
    pub(super) fn len(&self) -> usize {
        self.taken.count_ones() as usize
    }

    pub(super) fn is_empty(&self) -> bool {
        self.taken == 0
    }

    /// Whether there is such a place, and nothing in it.
    pub(super) fn is_free(&self, index: usize) -> bool {
        self.places.get(index).is_some_and(Option::is_none)
    }

    pub(super) fn get(&self, index: usize) -> Option<&InFlight> {
        self.places.get(index)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut InFlight> {
        self.places.get_mut(index)?.as_mut()
    }

    /// Into a place that is free.
    pub(super) fn put(&mut self, index: usize, entry: InFlight) {
        self.places[index] = Some(entry);
        self.taken |= 1 << index;
    }

    pub(super) fn take(&mut self, index: usize) -> Option<InFlight> {
        let entry = self.places.get_mut(index)?.take()?;
        self.taken &= !(1 << index);
        Some(entry)
    }

    /// The places that are taken now, in order. Who walks them may take from them.
    pub(super) fn indices(&self) -> impl Iterator<Item = usize> + use<> {
        let mut left = self.taken;
        core::iter::from_fn(move || {
            let index = left.trailing_zeros();
            left &= left.wrapping_sub(1);
            (index < u64::BITS).then_some(index as usize)
        })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &InFlight> {
        self.indices().filter_map(|index| self.get(index))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut InFlight> {
        self.places.iter_mut().flatten()
    }

    /// Where data is being changed right now.
    pub(super) fn running_changes(&self) -> impl Iterator<Item = SectorRange> {
        let running = self.iter().filter(|entry| entry.is_changing());
        running.map(|entry| entry.request.range)
    }
}
