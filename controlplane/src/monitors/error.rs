//! What is not well, as a monitor found it.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

use controlplane_api::client::ClientError;
use thiserror::Error;

use crate::resources::ResourceError;

/// What is not well. Its code is that of the line that tells it: LS6167, LS6168.
#[derive(Debug, Error)]
pub enum Ill {
    /// The script could not be run, took too long, or does not die.
    #[error(transparent)]
    Run(#[from] ResourceError),
    /// The script said no.
    #[error("{command} ended with {status}; its words are in {}", .log.display())]
    Ended {
        /// What ran.
        command: String,
        /// Its end.
        status: ExitStatus,
        /// Where its words are.
        log: PathBuf,
    },
    /// Nothing is plugged in, or the interface is down.
    #[error("{interface} has no carrier: it is {state}")]
    NoCarrier {
        /// Which one.
        interface: String,
        /// In the kernel's word.
        state: String,
    },
    /// What the kernel says of the interface cannot be read.
    #[error("the interface {interface} cannot be looked at: {source}")]
    Interface {
        /// Which one.
        interface: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Nobody answers.
    #[error("no answer within {within_ms} ms from {targets}")]
    Silent {
        /// Who was asked.
        targets: String,
        /// For how long, milliseconds.
        within_ms: u128,
    },
    /// Echo requests cannot be sent.
    #[error("cannot ask: {0}")]
    Socket(#[source] io::Error),
    /// The group could go on, and not survive the next failure.
    #[error("volume {volume}: {lacks}")]
    Copies {
        /// Which one.
        volume: String,
        /// What it lacks.
        lacks: String,
    },
    /// A volume's daemon does not say how it is.
    #[error("volume {volume}: {source}")]
    Daemon {
        /// Which one.
        volume: String,
        /// Why not.
        #[source]
        source: ClientError,
    },
}
