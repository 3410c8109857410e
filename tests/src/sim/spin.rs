//! The core's timer. I32: whoever was just ticked and asks for a moment that is past already, again and again, would
//! keep a processor busy for nothing.

use mirror_core::event::Event;

use super::node::MS;
use super::world::{Happening, World};

/// So often in a row a tick may be asked for at once: a step may lead to the next one.
const TICKS_MAX: u32 = 8;
/// Ticks further apart than that are no busy loop.
const APART: u64 = MS / 10;

/// Ticks that were asked for at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spin {
    ticks: u32,
    last: u64,
}

impl World {
    pub(super) fn plan_tick(&mut self, node: usize) {
        let place = &self.nodes[node];
        let Some(process) = place.process.as_ref() else {
            return;
        };
        let Some(deadline) = process.volume.deadline() else {
            return;
        };
        let time = place.when(deadline).max(self.now);
        if process.tick_at.is_none_or(|planned| planned > time) {
            let process = process.number;
            if let Some(held) = self.nodes[node].process.as_mut() {
                held.tick_at = Some(time);
            }
            self.at(time - self.now, Happening::Tick { node, process });
        }
    }

    pub(super) fn tick(&mut self, node: usize, number: u64) {
        if !self.nodes[node].process_is(number) {
            return;
        }
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        // A tick that an earlier one took the place of would start a second chain of them.
        if process.tick_at.is_none_or(|planned| planned > self.now) {
            return;
        }
        process.tick_at = None;
        self.feed(node, Event::Tick);
        self.check_spin(node);
    }

    /// I32. What else happens at the same moment is no excuse: the daemon would be asked that often too.
    fn check_spin(&mut self, node: usize) {
        let (now, clock) = (self.now, self.nodes[node].clock(self.now));
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        let deadline = process.volume.deadline();
        let spin = &mut process.spin;
        let at_once = deadline.filter(|deadline| *deadline <= clock);
        let row = now - spin.last <= APART;
        spin.last = now;
        spin.ticks = match at_once {
            Some(_) if row => spin.ticks + 1,
            Some(_) => 1,
            None => 0,
        };
        if let Some(deadline) = at_once.filter(|_| process.spin.ticks >= TICKS_MAX) {
            self.fail(format!(
                "{node}: ticked {TICKS_MAX} times in a row at {clock:?}, it still asks for {deadline:?} (I32)"
            ));
        }
    }
}
