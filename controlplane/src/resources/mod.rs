//! What a group starts and stops: file systems, addresses, scripts, programs, units of systemd.
//!
//! Everything here blocks, each action in a thread of its own, and ends when its [`Limit`] says so. What
//! starts and when is decided in `controlplane_core::group`.

pub mod address;
pub mod cage;
pub mod environment;
pub mod error;
pub mod exec;
pub mod filesystem;
pub mod limit;
pub mod mark;
pub mod mounts;
pub mod neighbours;
pub mod netlink;
pub mod places;
pub mod program;
pub mod systemd;

use std::sync::Arc;

use controlplane_core::group::{Action, Manner, Outcome};

pub use address::FloatingIp;
pub use environment::Environment;
pub use error::ResourceError;
pub use exec::Exec;
pub use filesystem::FileSystem;
pub use limit::Limit;
pub use places::Places;
pub use program::Program;
pub use systemd::Systemd;

use crate::config;

/// What an executor works with.
pub struct Context {
    /// Where files are, and the group's and the resource's names.
    pub places: Places,
    /// What scripts and programs are told.
    pub environment: Environment,
    /// Until when.
    pub limit: Limit,
    /// Called when a resource that was online fails by itself.
    pub broke: Arc<dyn Fn(ResourceError) + Send + Sync>,
}

/// The kinds of resources.
#[derive(Debug)]
pub enum Kind {
    /// A mount of a volume.
    FileSystem(FileSystem),
    /// An address that moves with the group.
    FloatingIp(FloatingIp),
    /// Scripts.
    Exec(Exec),
    /// A supervised program.
    Program(Program),
    /// A unit of systemd.
    Systemd(Systemd),
}

impl Kind {
    /// As it was configured. Nothing was looked at yet.
    pub fn of(configured: config::Kind) -> Self {
        match configured {
            config::Kind::FileSystem(kind) => Self::FileSystem(kind),
            config::Kind::FloatingIp(kind) => Self::FloatingIp(kind),
            config::Kind::Exec(kind) => Self::Exec(kind),
            config::Kind::Program(settings) => Self::Program(Program::new(settings)),
            config::Kind::Systemd(kind) => Self::Systemd(kind),
        }
    }

    /// Carries an action out, and says how it ended.
    pub fn act(&self, action: Action, context: &Context) -> (Outcome, Option<ResourceError>) {
        let outcome = match action {
            Action::Probe => self.probe(context),
            Action::Start(_) => self.start(context).map(|()| Outcome::Done),
            Action::Stop(manner) => self.stop(manner, context).map(|()| Outcome::Done),
        };
        match outcome {
            Ok(outcome) => (outcome, None),
            Err(error) => (Outcome::Failed, Some(error)),
        }
    }

    fn probe(&self, context: &Context) -> Result<Outcome, ResourceError> {
        match self {
            Self::FileSystem(kind) => kind.probe(context),
            Self::FloatingIp(kind) => kind.probe(),
            Self::Exec(kind) => kind.probe(context),
            Self::Program(kind) => kind.probe(context),
            Self::Systemd(kind) => kind.probe(context),
        }
    }

    fn start(&self, context: &Context) -> Result<(), ResourceError> {
        match self {
            Self::FileSystem(kind) => kind.start(context),
            Self::FloatingIp(kind) => kind.start(context),
            Self::Exec(kind) => kind.start(context),
            Self::Program(kind) => kind.start(context),
            Self::Systemd(kind) => kind.start(context),
        }
    }

    fn stop(&self, manner: Manner, context: &Context) -> Result<(), ResourceError> {
        match self {
            Self::FileSystem(kind) => kind.stop(manner, context),
            Self::FloatingIp(kind) => kind.stop(context),
            Self::Exec(kind) => kind.stop(manner, context),
            Self::Program(kind) => kind.stop(manner, context),
            Self::Systemd(kind) => kind.stop(manner, context),
        }
    }
}
