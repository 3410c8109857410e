//! Starts ledger writers in machines.

use std::time::Duration;

use crate::machine::{Machine, Running};

/// Longer than its own time a writer may need to end: its last writes may be frozen by a failover.
const END_GRACE: Duration = Duration::from_secs(120);
/// The writer itself gives up waiting for its device before.
const WAIT_GRACE: Duration = Duration::from_secs(300);

/// When a writer flushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Never.
    Never,
    /// Each worker after so many of its writes.
    Every(u64),
}

/// What a ledger writer does. `..Writer::new(run, device, blocks)` fills in the rest.
#[derive(Clone, Debug)]
pub struct Writer {
    /// Number of the run; each writer of a scenario has another one.
    pub run: u32,
    /// Device in the machine.
    pub device: String,
    /// Blocks from the start of the device.
    pub blocks: u64,
    /// Bytes of a block.
    pub block_size: usize,
    /// Writes in flight, never two of the same block.
    pub queue_depth: u64,
    /// When to flush.
    pub fsync: Fsync,
    /// Every write durable by itself.
    pub fua: bool,
    /// Which blocks in which order.
    pub seed: u64,
    /// How long.
    pub seconds: u64,
    /// Stop after so many writes (0: only by time).
    pub writes: u64,
    /// Which of the machine's three ledger ports; writers that run at the same time need different ones.
    pub port: usize,
    /// Go on after errors.
    pub keep_going: bool,
    /// Begin when the device can be read, and count the seconds from then.
    pub wait: bool,
}

impl Writer {
    /// 4 KiB blocks, eight in flight, no flush, ten seconds.
    #[must_use]
    pub fn new(run: u32, device: impl Into<String>, blocks: u64) -> Self {
        Self {
            run,
            device: device.into(),
            blocks,
            block_size: 4096,
            queue_depth: 8,
            fsync: Fsync::Never,
            fua: false,
            seed: u64::from(run),
            seconds: 10,
            writes: 0,
            port: 0,
            keep_going: false,
            wait: false,
        }
    }

    /// Starts it; wait for its end with the result, or let the machine die under it.
    ///
    /// # Errors
    /// If the machine is off.
    pub fn start(&self, machine: &Machine) -> anyhow::Result<Running> {
        let grace = if self.wait {
            END_GRACE + WAIT_GRACE
        } else {
            END_GRACE
        };
        machine.spawn(&self.script(), Duration::from_secs(self.seconds) + grace)
    }

    fn script(&self) -> String {
        let fsync = match self.fsync {
            Fsync::Never => "none".to_owned(),
            Fsync::Every(count) => format!("every-{count}"),
        };
        let flag = |set: bool, name: &'static str| if set { name } else { "" };
        format!(
            "exec vm-guest ledger-writer --device {} --blocks {} --block-size {} --queue-depth {} --fsync {fsync} \
             --seed {} --run {} --seconds {} --writes {} --port {}{}{}{}",
            self.device,
            self.blocks,
            self.block_size,
            self.queue_depth,
            self.seed,
            self.run,
            self.seconds,
            self.writes,
            self.port,
            flag(self.fua, " --fua"),
            flag(self.keep_going, " --keep-going"),
            flag(self.wait, " --wait"),
        )
    }
}
