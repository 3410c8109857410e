//! The doors of Lockstep's daemons: what goes through them, and a client.
//!
//! The admin socket of a volume's daemon, `/run/lockstep/NAME.sock` ([`admin`] has its messages, [`client`] speaks
//! them): the daemon writes the same JSON without this crate; the tests in [`admin`] hold examples of every line, so a
//! change on one side shows. A node's control plane speaks HTTP at `/run/lockstep/lockstepd/api.sock` ([`cluster`], [`verbs`], [`together`], [`config`], [`events`], [`why`], [`keys`], [`trust`]). A witness speaks lines over TLS ([`arbiter`]).

#![forbid(unsafe_code)]

pub mod admin;
pub mod arbiter;
pub mod client;
pub mod cluster;
pub mod config;
pub mod events;
pub mod keys;
pub mod paths;
pub mod together;
pub mod trust;
pub mod verbs;
pub mod why;

pub use client::{Client, ClientError};
