//! What the test machines and the harness must agree on: the frames of the
//! command channel, the records of the ledger and the content of a ledger sector.

pub mod pattern;
pub mod record;
pub mod wire;

/// Name of the virtio-serial port that carries the command channel.
pub const AGENT_PORT: &str = "lockstep.agent";
/// Prefix of the names of the virtio-serial ports that carry ledgers: `lockstep.ledger0`, ...
pub const LEDGER_PORT_PREFIX: &str = "lockstep.ledger";
/// How many ledger writers can run in one machine at the same time.
pub const LEDGER_PORTS: usize = 3;
/// Where the kernel shows virtio-serial ports by name (the links are made by our init).
pub const PORT_DIRECTORY: &str = "/dev/virtio-ports";
/// Where the binaries of this run are found in a machine.
pub const BIN_DIRECTORY: &str = "/opt/bin";
