//! The mirror's rules as a pure state machine.
//!
//! Time and happenings go in ([`event::Event`]), things to do come out ([`effect::Effect`]). There
//! is no clock, socket, disk, log or random source here, and `no_std` makes the compiler say so.
//! [`volume::Volume`] is the door; docs/ARCHITECTURE.md is the map.

#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

extern crate alloc;
#[cfg(any(test, feature = "mutants"))]
extern crate std;

pub mod admin;
pub mod auth;
pub mod blocks;
pub mod checksum;
pub mod disk;
pub mod effect;
pub mod engine;
pub mod event;
pub mod intent;
pub mod isolation;
pub mod keys;
pub mod limits;
pub mod mutant;
pub mod notice;
pub mod paths;
pub mod rejoin;
pub mod resync;
pub mod types;
pub mod verify;
pub mod view;
pub mod volume;
pub mod wire;
