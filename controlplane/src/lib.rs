//! The shell of the control plane: sockets, files, threads around `controlplane-core`.

pub mod api;
pub mod arbiter;
pub mod clerk;
pub mod config;
pub mod daemons;
mod durable;
pub mod etcd;
pub mod events;
pub mod heartbeat;
pub mod join;
pub mod key;
pub mod left_behind;
pub mod log;
pub mod mirror;
pub mod node;
pub mod notify;
pub mod ping;
pub mod push;
pub mod report;
pub mod resources;
pub mod services;
pub mod sys;
pub mod trust;
pub mod watchdog;
pub mod why;
pub mod wishes;
pub mod witness;
