//! Why a resource did not start, stop or stay.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use thiserror::Error;

/// Why a resource did not start, stop or stay.
#[derive(Debug, Error)]
pub enum ResourceError {
    /// Its time was over.
    #[error("not done after {} ms: broken off", .after.as_millis())]
    Late {
        /// The timeout.
        after: Duration,
    },
    /// Something else has to be done at once.
    #[error("broken off")]
    Cut,
    /// A file, a socket or a process.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// `mount` said no.
    #[error("cannot mount {} on {}: {source}", .device.display(), .mount_point.display())]
    Mount {
        /// Which device.
        device: PathBuf,
        /// Where.
        mount_point: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Nobody ever made a file system there.
    #[error("{} is empty: there is no file system to be mounted on {}; `lockstep group prepare` makes it", .device.display(), .mount_point.display())]
    Empty {
        /// Which device.
        device: PathBuf,
        /// Where it would be mounted.
        mount_point: PathBuf,
    },
    /// Something else is mounted there.
    #[error("{} holds a mount of {holder} already: unmount it, and see who mounts it (fstab? a unit?)", .mount_point.display())]
    Occupied {
        /// Where.
        mount_point: PathBuf,
        /// What is there.
        holder: String,
    },
    /// Somebody uses the mount.
    #[error("{} is busy: {users}", .mount_point.display())]
    Busy {
        /// Where.
        mount_point: PathBuf,
        /// Processes and mounts, for people.
        users: String,
    },
    /// Unmounted here, and still held.
    #[error("{} is unmounted from {}, and somebody still holds it: a mount in another mount namespace (a container?), or a lazy unmount", .device.display(), .mount_point.display())]
    StillHeld {
        /// Which device.
        device: PathBuf,
        /// Where.
        mount_point: PathBuf,
    },
    /// The file system check found what it does not repair by itself.
    #[error("{command} ended with {status}: repair the file system by hand; its words are in {}", .log.display())]
    Check {
        /// What ran.
        command: String,
        /// Its end.
        status: ExitStatus,
        /// Where its words are.
        log: PathBuf,
    },
    /// Another machine has the address.
    #[error("{address} is in use by {holder}")]
    Duplicate {
        /// Which one.
        address: IpAddr,
        /// Its hardware address, or who says so.
        holder: String,
    },
    /// There is no interface for it.
    #[error("no interface for {address}: {reason}")]
    NoInterface {
        /// Which one.
        address: IpAddr,
        /// Why.
        reason: String,
    },
    /// A script or program said no.
    #[error("{command} ended with {status}; its words are in {}", .log.display())]
    Command {
        /// What ran.
        command: String,
        /// Its end.
        status: ExitStatus,
        /// Where its words are.
        log: PathBuf,
    },
    /// `systemctl` said no.
    #[error("{command} ended with {status}: {said}")]
    Systemctl {
        /// What ran.
        command: String,
        /// Its end.
        status: ExitStatus,
        /// Its words.
        said: String,
    },
    /// A unit did not come to what it was asked for.
    #[error("the unit {unit} is {state:?} after that")]
    Unit {
        /// Which one.
        unit: String,
        /// In systemd's word.
        state: String,
    },
    /// Processes that survive a kill.
    #[error("processes do not die: {pids:?} (waiting for a disk?)")]
    Unkillable {
        /// Which ones.
        pids: Vec<i32>,
    },
    /// A supervised program ended too often.
    #[error("{command} ended {ends} times within {} s; its words are in {}", .within.as_secs(), .log.display())]
    Restarts {
        /// What ran.
        command: String,
        /// How often it ended.
        ends: usize,
        /// The time in which they are counted.
        within: Duration,
        /// Where its words are.
        log: PathBuf,
    },
}

impl ResourceError {
    /// Its stable code; docs/codes.md explains it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Late { .. } => "LS6060",
            Self::Cut => "LS6061",
            Self::Io { .. } => "LS6062",
            Self::Mount { .. } => "LS6063",
            Self::Empty { .. } => "LS6216",
            Self::Occupied { .. } => "LS6064",
            Self::Busy { .. } => "LS6065",
            Self::StillHeld { .. } => "LS6066",
            Self::Check { .. } => "LS6067",
            Self::Duplicate { .. } => "LS6068",
            Self::NoInterface { .. } => "LS6069",
            Self::Command { .. } => "LS6070",
            Self::Unkillable { .. } => "LS6071",
            Self::Systemctl { .. } => "LS6172",
            Self::Unit { .. } => "LS6173",
            Self::Restarts { .. } => "LS6072",
        }
    }

    /// Whether the cause is on the volume: the other node would find it as it is here.
    pub fn is_of_the_volume(&self) -> bool {
        match self {
            Self::Empty { .. } | Self::Check { .. } => true,
            Self::Late { .. }
            | Self::Cut
            | Self::Io { .. }
            | Self::Mount { .. }
            | Self::Occupied { .. }
            | Self::Busy { .. }
            | Self::StillHeld { .. }
            | Self::Duplicate { .. }
            | Self::NoInterface { .. }
            | Self::Command { .. }
            | Self::Unkillable { .. }
            | Self::Systemctl { .. }
            | Self::Unit { .. }
            | Self::Restarts { .. } => false,
        }
    }

    /// For `map_err`.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// The same for an error number.
    pub fn errno(what: impl Into<String>) -> impl FnOnce(nix::errno::Errno) -> Self {
        let what = what.into();
        move |errno| Self::Io {
            what,
            source: errno.into(),
        }
    }
}
