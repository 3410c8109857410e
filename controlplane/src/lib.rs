//! The shell of the control plane: sockets, files, threads around `controlplane-core`.

pub mod arbiter;
pub mod heartbeat;
pub mod trust;
pub mod witness;
