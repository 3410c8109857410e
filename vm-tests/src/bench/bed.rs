//! Two machines with a disk for each system on both, and the network between them.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::bench::systems::System;
use crate::binaries;
use crate::cluster::Cluster;
use crate::machine::Machine;
use crate::network::Net;
use crate::scenario::Context;

const MIB: u64 = 1 << 20;
/// PostgreSQL, and the buffers of Lockstep's daemon, beside what fio needs.
const MEMORY_MIB: usize = 1280;
const SETTLE_LIMIT: Duration = Duration::from_secs(120);
const PINGS: u32 = 10;
const PING_LIMIT: Duration = Duration::from_secs(60);

/// The machines.
pub struct Bed {
    cluster: Cluster,
}

impl Bed {
    /// Boots both, with disks for these systems.
    ///
    /// # Errors
    /// If one does not boot.
    pub fn boot(
        context: &Context,
        systems: &[System],
        disk_mib: u64,
        directory: Option<&PathBuf>,
    ) -> anyhow::Result<Self> {
        let mut builder = context.cluster().memory_mib(MEMORY_MIB).module("dm_mod");
        if let Some(directory) = directory {
            builder = builder.raw_directory(directory);
        }
        for system in systems {
            builder = builder.raw_disk(system.disk(), disk_mib * MIB);
        }
        if systems.contains(&System::Ublk) {
            builder = builder.binaries(&binaries::build_loop_target()?);
        }
        let cluster = builder.binaries(&context.product()?).boot()?;
        Ok(Self { cluster })
    }

    /// The machine that uses the disks.
    #[must_use]
    pub fn one(&self) -> &Machine {
        self.cluster.machine("node1")
    }

    /// The machine with the second copies.
    #[must_use]
    pub fn two(&self) -> &Machine {
        self.cluster.machine("node2")
    }

    /// Lets the network take so much longer there and back: half of it on each side. Says what a ping then takes.
    ///
    /// # Errors
    /// If a machine refuses, or does not hear the other one.
    pub fn delay(&self, round_trip_ms: u64) -> anyhow::Result<f64> {
        let card = Net::Mirror.card();
        let script = if round_trip_ms == 0 {
            format!("tc qdisc del dev {card} root 2>/dev/null || true")
        } else {
            let half_us = round_trip_ms * 500;
            // Enough for what is under way in that time: netem drops what is beyond, a thousand packets by itself.
            format!("tc qdisc replace dev {card} root netem delay {half_us}us limit 100000")
        };
        for node in [self.one(), self.two()] {
            node.exec_ok(&script)?;
        }
        let address = self.two().address(Net::Mirror);
        let command = format!("ping -q -i 0.2 -c {PINGS} {address}");
        let output = self.one().exec(&command, PING_LIMIT)?;
        ping_ms(&output.stdout).with_context(|| format!("{command}: {output:?}"))
    }

    /// Nothing that a job left behind is written while the next one runs.
    ///
    /// # Errors
    /// If a machine is gone.
    pub fn settle(&self) -> anyhow::Result<()> {
        let running = [self.two(), self.one()].map(|node| node.spawn("sync", SETTLE_LIMIT));
        for command in running {
            let output = command?.wait()?;
            ensure!(output.ok(), "sync: {output:?}");
        }
        Ok(())
    }
}

/// The mean in ping's last line: `rtt min/avg/max/mdev = 0.5/0.6/0.7/0.1 ms`.
fn ping_ms(text: &str) -> Option<f64> {
    let (_, figures) = text.lines().last()?.split_once(" = ")?;
    figures.split('/').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_of_ping_is_read() {
        let text = "10 packets transmitted\nrtt min/avg/max/mdev = 1.025/2.250/3.500/0.1 ms";
        assert_eq!(ping_ms(text), Some(2.25));
        assert_eq!(ping_ms("10 packets transmitted, 0 received\n"), None);
    }
}
