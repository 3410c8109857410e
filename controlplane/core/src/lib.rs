//! The cluster's rules as pure state machines.
//!
//! Time and happenings go in, things to do come out. There is no clock, socket, disk, log or random source
//! here, and `no_std` makes the compiler say so. docs/controlplane.md prints the tables.

#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

extern crate alloc;
#[cfg(any(test, feature = "mutants"))]
extern crate std;

pub mod authority;
pub mod bounds;
pub mod facts;
pub mod failing;
pub mod failure_detector;
pub mod group;
pub mod keeper;
pub mod limits;
pub mod membership;
pub mod monitor;
pub mod mutant;
pub mod partition;
pub mod push;
pub mod register;
pub mod restarts;
pub mod rotation;
pub mod self_fencing;
pub mod timeouts;
pub mod view_change;
pub mod wire;
pub mod wish;
