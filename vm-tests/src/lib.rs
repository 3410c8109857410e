//! Virtual machines that prove Lockstep on real kernels.
//!
//! A [`cluster::Cluster`] boots machines with a kernel that has ublk, three networks and disks that we
//! serve ourselves, so that power cuts, disk errors and broken networks are ours to make. The
//! [`ledger`] knows what was acknowledged, and the [`checker`] says whether it is still there.
//!
//! A scenario is a function over a [`scenario::Context`], registered in [`scenarios::all`].

pub mod agent;
pub mod bench;
pub mod binaries;
pub mod checker;
pub mod cluster;
pub mod controlled;
pub mod cpio;
pub mod crash;
pub mod daemons;
pub mod database;
pub mod demo;
pub mod disk;
mod faults;
pub mod guide;
pub mod image;
pub mod ledger;
pub mod machine;
mod nbd;
pub mod network;
pub mod packages;
pub mod postgres;
pub mod process;
pub mod progress;
mod qemu;
pub mod qmp;
mod raw_disk;
pub mod scenario;
pub mod scenarios;
pub mod shell;
mod sources;
mod ticks;
pub mod verify;
pub mod volatile;
pub mod volume;
pub mod wait;
pub mod write_log;
pub mod writer;

pub use binaries::{Binaries, build_guest, build_product};
pub use checker::{Durability, Verdict, check};
pub use cluster::{Cluster, ClusterBuilder};
pub use disk::{Disk, DiskMode};
pub use machine::{Machine, Output};
pub use network::Net;
pub use scenario::{Context, Scenario};
pub use wait::wait_until;
pub use writer::{Fsync, Writer};
