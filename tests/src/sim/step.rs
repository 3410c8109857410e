//! The steps of control planes, their networks and the register.

use controlplane_core::keeper::Word;
use controlplane_core::wire::Heartbeat;

use super::control::Incoming;
use super::witness::{Line, Reply};

/// Something that a control plane, its network or the register does; boxed on the agenda.
#[expect(clippy::large_enum_variant, reason = "boxed as a whole")]
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// `lockstepd` starts.
    Start { node: usize },
    /// Its heartbeat thread sends.
    Beat { node: usize, run: u64 },
    /// It wakes, because a path may have been silent for long enough.
    Wake { node: usize, run: u64 },
    /// A heartbeat arrives.
    Heartbeat { node: usize, heartbeat: Heartbeat },
    /// Somebody sends what was recorded earlier.
    Replay,
    /// The data plane is asked for its status.
    Look { node: usize, run: u64 },
    /// Something waits to be decided.
    Incoming {
        node: usize,
        run: u64,
        incoming: Incoming,
    },
    /// What waits behind a standstill is decided upon.
    Catch { node: usize, run: u64 },
    /// A deadline of the keeper.
    Tick { node: usize, run: u64 },
    /// A word reaches the data plane.
    Word {
        node: usize,
        run: u64,
        process: u64,
        word: Word,
    },
    /// A connection to the register stands.
    Connected { node: usize, run: u64, server: u64 },
    /// It is dialled.
    Connect { node: usize, run: u64 },
    /// A report is due.
    Report { node: usize, run: u64 },
    /// A line reaches the register.
    Asked {
        node: usize,
        run: u64,
        connection: (u64, u64),
        exchange: u64,
        line: Line,
    },
    /// Its reply reaches the node.
    Replied {
        node: usize,
        run: u64,
        connection: (u64, u64),
        exchange: u64,
        reply: Reply,
    },
    /// A reply did not come in time.
    Silent {
        node: usize,
        run: u64,
        exchange: u64,
    },
    /// What operators wish is on the disk.
    Stored { node: usize, run: u64, version: u64 },
    /// Operators look whether everything runs.
    WantPeace,
    /// Interconnects and ways to the register are whole again.
    Heal,
    /// The register runs again.
    RegisterUp,
}

impl Step {
    /// On which machine it happens, if on one.
    pub(super) fn node(&self) -> Option<usize> {
        match self {
            Self::Start { node }
            | Self::Beat { node, .. }
            | Self::Wake { node, .. }
            | Self::Heartbeat { node, .. }
            | Self::Look { node, .. }
            | Self::Incoming { node, .. }
            | Self::Catch { node, .. }
            | Self::Tick { node, .. }
            | Self::Word { node, .. }
            | Self::Connected { node, .. }
            | Self::Connect { node, .. }
            | Self::Report { node, .. }
            | Self::Replied { node, .. }
            | Self::Stored { node, .. }
            | Self::Silent { node, .. } => Some(*node),
            Self::Asked { .. } | Self::Replay | Self::WantPeace | Self::Heal | Self::RegisterUp => {
                None
            }
        }
    }
}
