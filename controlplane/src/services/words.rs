//! What a node and its groups' services tell each other, and where files are.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use controlplane_api::paths::state_directory;
use controlplane_core::group::{Action, Outcome};
use mirror_core::admin::{Role, Status};

use crate::config::Config;
use crate::monitors::Ill;
use crate::resources::{Places, ResourceError};

/// What is remembered over a reboot, in the state directory.
const STATE: &str = "groups";

/// How a volume stands, for those who use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It can be used here.
    Active,
    /// It cannot.
    Fenced,
    /// It is between both, or its daemon does not answer.
    Unclear,
}

impl Seen {
    /// By its daemon's status.
    pub fn of(status: Option<&Status>) -> Self {
        match status.map(|status| status.role) {
            Some(Role::Active) => Self::Active,
            Some(Role::Fenced) => Self::Fenced,
            Some(Role::Activating | Role::Deactivating) | None => Self::Unclear,
        }
    }
}

/// Why operators want a group stopped on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopping {
    /// It shall run nowhere.
    Stopped,
    /// It shall run on the other node.
    Moves,
}

/// What a thread tells.
#[derive(Debug)]
pub enum News {
    /// An action ended.
    Ended {
        /// Which group.
        group: usize,
        /// Which resource.
        resource: usize,
        /// The action's number.
        number: u64,
        /// What it was.
        action: Action,
        /// How it ended.
        outcome: Outcome,
        /// Why so.
        error: Option<ResourceError>,
    },
    /// A resource failed by itself.
    Broke {
        /// Which group.
        group: usize,
        /// Which resource.
        resource: usize,
        /// Why.
        error: ResourceError,
    },
    /// A look of a monitor ended.
    Looked {
        /// Which group.
        group: usize,
        /// Which monitor.
        monitor: usize,
        /// Since which begin of the looks.
        run: u64,
        /// How long it took.
        took: Duration,
        /// What is not well.
        ill: Option<Ill>,
    },
}

/// Tells the node. Blocks while its queue is full.
pub type Tell = Arc<dyn Fn(News) + Send + Sync>;

/// Where files are, and who is who.
#[derive(Clone, Debug)]
pub struct Roots {
    /// Of one resource of one group; the names are replaced.
    pub places: Places,
    /// What is remembered over a reboot.
    pub state: PathBuf,
    /// This node's name.
    pub node: String,
    /// The other one's.
    pub peer: String,
    /// [`crate::heartbeat::Shared::clear`].
    pub clear: Arc<AtomicU64>,
}

impl Roots {
    /// On a real node.
    pub fn of(config: &Config, clear: &Arc<AtomicU64>) -> Self {
        Self {
            places: Places::of("", ""),
            state: state_directory().join(STATE),
            node: config.name.clone(),
            peer: config.peer_name.clone(),
            clear: Arc::clone(clear),
        }
    }
}
