//! What an application's write costs.
//!
//! [`engine`] is two cores that speak with each other in memory: no I/O, no encoding. [`pair`] is two daemons, each in a
//! process of its own with its own ring, as in life, but for the block device: [`front`] makes the requests within the
//! owner thread, where ublk would hand them over. [`plain`] is the floor: the same requests as plain io_uring writes.

pub mod engine;
pub mod front;
pub mod heap;
pub mod job;
pub mod line;
pub mod pair;
pub mod plain;
