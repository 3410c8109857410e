//! The I/O shell around `mirror-core`: one process and one owner thread per volume.
//!
//! Decisions are the core's; here is everything that touches the kernel. [`driver`] is the place
//! where events go in and effects come out.

pub mod admin_server;
pub mod adopt;
pub mod buffers;
pub mod claim;
pub mod config;
pub mod device;
pub mod device_control;
pub mod device_helper;
pub mod disown;
pub mod dm;
pub mod driver;
pub mod explain;
pub mod format;
pub mod front;
pub mod identity;
pub mod inbox;
pub mod keep;
pub mod key_file;
pub mod local_disk;
pub mod log;
pub mod metadata;
pub mod peer_link;
pub mod queue;
pub mod ring;
pub mod startup;
pub mod sys;
mod tell;
pub mod waits;
