//! What can be on the agenda.

use std::cmp::{Ordering, Reverse};

use mirror_core::event::{CloseReason, Digest};
use mirror_core::types::{SessionId, Tag};
use mirror_core::wire::Frame;

use super::arbiter;
use super::control;
use super::faults::Trouble;
use super::isolate::Step;
use super::world::World;

/// Something on the agenda.
#[derive(Clone, Debug)]
pub(super) enum Happening {
    Tick {
        node: usize,
        process: u64,
    },
    DiskEnd {
        node: usize,
        boot: u64,
        process: u64,
        ticket: u64,
    },
    MetaStep {
        node: usize,
        process: u64,
    },
    Disowned {
        node: usize,
        process: u64,
    },
    DiskMended {
        node: usize,
    },
    Examined {
        node: usize,
        process: u64,
        slot: u16,
        zero: bool,
        digest: Option<Digest>,
    },
    EarlyPersisted {
        node: usize,
        process: u64,
        sequence: u64,
    },
    EarlyBlock {
        node: usize,
        process: u64,
        id: u64,
    },
    SecondDial {
        node: usize,
        process: u64,
    },
    Forged {
        node: usize,
        process: u64,
        session: SessionId,
        frame: Box<Frame>,
    },
    Opened {
        connection: u64,
        node: usize,
        dialled: bool,
    },
    Arrive {
        connection: u64,
        from: usize,
    },
    Closed {
        connection: u64,
        node: usize,
        reason: CloseReason,
    },
    DeviceStarted {
        node: usize,
        process: u64,
    },
    DeviceUp {
        node: usize,
        process: u64,
    },
    DeviceStop {
        node: usize,
        process: u64,
        force: bool,
    },
    DeviceGone {
        node: usize,
        process: u64,
    },
    Hand {
        node: usize,
        process: u64,
        tag: Tag,
    },
    App {
        node: usize,
        activation: u64,
        slot: usize,
    },
    Start {
        node: usize,
    },
    PowerOn {
        node: usize,
    },
    Heal {
        silent: [bool; 2],
    },
    Resume {
        node: usize,
    },
    Trouble {
        trouble: Box<Trouble>,
    },
    Measured {
        node: usize,
        process: u64,
        question: u64,
    },
    GrowDesk,
    GrowTrouble {
        node: usize,
        kind: u64,
    },
    Desk,
    Compare,
    Paths {
        node: usize,
        process: u64,
    },
    DialFailed {
        node: usize,
        process: u64,
        path: usize,
    },
    Stood {
        connection: u64,
        path: usize,
        node: usize,
        process: u64,
    },
    Spares,
    HealPath {
        path: usize,
    },
    Isolated {
        node: usize,
        process: u64,
        step: Step,
    },
    Arbiter {
        step: arbiter::Step,
    },
    Control {
        step: Box<control::Step>,
    },
}

impl Happening {
    /// On which machine it happens, if on one.
    pub(super) fn place(&self) -> Option<usize> {
        match self {
            Self::Tick { node, .. }
            | Self::DiskEnd { node, .. }
            | Self::MetaStep { node, .. }
            | Self::Disowned { node, .. }
            | Self::Examined { node, .. }
            | Self::Measured { node, .. }
            | Self::EarlyPersisted { node, .. }
            | Self::EarlyBlock { node, .. }
            | Self::SecondDial { node, .. }
            | Self::Forged { node, .. }
            | Self::Paths { node, .. }
            | Self::DialFailed { node, .. }
            | Self::Stood { node, .. }
            | Self::Opened { node, .. }
            | Self::Closed { node, .. }
            | Self::DeviceStarted { node, .. }
            | Self::DeviceUp { node, .. }
            | Self::DeviceStop { node, .. }
            | Self::DeviceGone { node, .. }
            | Self::Hand { node, .. }
            | Self::App { node, .. }
            | Self::Isolated { node, .. }
            | Self::Start { node } => Some(*node),
            Self::Arrive { from, .. } => Some(1 - from),
            Self::Arbiter { step } => step.node(),
            Self::Control { step } => step.node(),
            Self::PowerOn { .. }
            | Self::DiskMended { .. }
            | Self::Heal { .. }
            | Self::Resume { .. }
            | Self::Trouble { .. }
            | Self::Desk
            | Self::GrowDesk
            | Self::GrowTrouble { .. }
            | Self::Compare
            | Self::Spares
            | Self::HealPath { .. } => None,
        }
    }
}

/// A happening with its place on the agenda.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) time: u64,
    pub(super) sequence: u64,
    pub(super) happening: Happening,
}

impl Entry {
    fn place(&self) -> (u64, u64) {
        (self.time, self.sequence)
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}

impl World {
    /// Lets the next thing on the agenda happen.
    pub fn step(&mut self) {
        if let Some(Reverse(entry)) = self.agenda.pop() {
            self.now = self.now.max(entry.time);
            self.happen(entry.happening);
        }
    }
}
