//! The doors of Lockstep's daemons: what goes through them, and a client.
//!
//! Today there is one door: the admin socket of a volume's daemon, `/run/lockstep/NAME.sock`
//! ([`admin`] has its messages, [`client`] speaks them). The daemon writes the same JSON without
//! this crate; the tests in [`admin`] hold examples of every line, so a change on one side shows.

#![forbid(unsafe_code)]

pub mod admin;
pub mod arbiter;
pub mod client;
pub mod paths;

pub use client::{Client, ClientError};
