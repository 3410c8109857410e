//! The newest events, in memory.

use std::collections::VecDeque;
use std::sync::Arc;

use controlplane_api::events::{Event, Query};

/// Events in memory at most.
pub const EVENTS_MAX: usize = 4096;
/// What they take at most, counted by [`cost`].
pub const MEMORY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What an event takes beside its words.
const EVENT_BYTES: usize = 256;
/// What a figure takes beside its words.
const FIELD_BYTES: usize = 64;

/// What an event takes, as it is counted here.
pub(super) fn cost(event: &Event) -> usize {
    let words = [
        Some(&event.code),
        event.group.as_ref(),
        event.volume.as_ref(),
    ];
    let words = words.into_iter().flatten().map(String::len).sum::<usize>();
    let fields = event.fields.iter();
    let fields: usize = fields
        .map(|(name, value)| FIELD_BYTES + name.len() + value.len())
        .sum();
    EVENT_BYTES + event.node.len() + event.text.len() + words + fields
}

#[derive(Debug, Default)]
pub(super) struct Ring {
    /// The oldest first.
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    /// The highest number that there ever was: what comes is above it, also after a clock was put back.
    highest: u64,
}

impl Ring {
    /// The highest number; 0 if there was no event yet.
    pub(super) fn newest(&self) -> u64 {
        self.highest
    }

    pub(super) fn oldest_ms(&self) -> Option<u64> {
        Some(self.events.front()?.at_ms)
    }

    pub(super) fn push(&mut self, event: Arc<Event>) {
        self.bytes += cost(&event);
        self.highest = self.highest.max(event.number);
        self.events.push_back(event);
        while self.is_over() {
            let Some(oldest) = self.events.pop_front() else {
                return;
            };
            self.bytes -= cost(&oldest);
        }
    }

    /// What earlier runs wrote down, the oldest first: before all that is here, as far as there is room.
    pub(super) fn remember(&mut self, earlier: Vec<Event>) {
        for event in earlier.into_iter().rev() {
            let bytes = cost(&event);
            self.bytes += bytes;
            self.highest = self.highest.max(event.number);
            self.events.push_front(Arc::new(event));
            if self.is_over() {
                self.events.pop_front();
                self.bytes -= bytes;
                return;
            }
        }
    }

    fn is_over(&self) -> bool {
        self.events.len() > EVENTS_MAX || self.bytes > MEMORY_BYTES_MAX
    }

    /// The newest of what is asked for, the oldest first, and how many more there are.
    pub(super) fn newest_of(&self, query: &Query, bytes_max: usize) -> (Vec<Arc<Event>>, u64) {
        let count_max = query.count.unwrap_or(usize::MAX);
        let (mut found, mut bytes, mut left_out) = (Vec::new(), 0, 0);
        for event in self.events.iter().rev().filter(|event| query.takes(event)) {
            bytes += cost(event);
            // Without a gap: what is older than something that is left out is left out.
            if left_out > 0 || found.len() >= count_max || bytes > bytes_max {
                left_out += 1;
            } else {
                found.push(Arc::clone(event));
            }
        }
        found.reverse();
        (found, left_out)
    }
}
