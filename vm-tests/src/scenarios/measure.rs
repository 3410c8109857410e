//! Figures that scenarios compare: from the status, from the network card, from the disks.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::machine::Machine;
use crate::network::Net;
use crate::progress::say;
use crate::volume::{DEVICE, Pair};

const MIB: f64 = (1 << 20) as f64;
pub(super) const FIO_LIMIT: Duration = Duration::from_secs(300);

/// A number in a node's status.
pub(super) fn figure(pair: &Pair, node: &Machine, pointer: &str) -> anyhow::Result<u64> {
    let status = pair.status(node)?;
    let value = status.pointer(pointer).and_then(serde_json::Value::as_u64);
    value.with_context(|| format!("no {pointer} in the status of {}: {status:#}", node.name()))
}

/// What a node sent, and what its application wrote meanwhile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Traffic {
    /// Payload of resyncs.
    pub(super) resync: u64,
    /// Everything that left the mirror link's card, headers included.
    pub(super) card: u64,
    /// Written by the application.
    pub(super) written: u64,
}

impl Traffic {
    /// Since the daemon (or, for the card, the machine) started.
    pub(super) fn so_far(pair: &Pair, node: &Machine) -> anyhow::Result<Self> {
        let card = node.exec_ok(&format!(
            "cat /sys/class/net/{}/statistics/tx_bytes",
            Net::Mirror.card()
        ))?;
        let status = pair.status(node)?;
        let counter = |name: &str| {
            let value = status["counters"][name].as_u64();
            value.with_context(|| format!("no counter {name}"))
        };
        Ok(Self {
            resync: counter("resync_sent_bytes")?,
            card: card.parse()?,
            written: counter("written_bytes")?,
        })
    }

    /// Since an earlier moment.
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            resync: self.resync - before.resync,
            card: self.card - before.card,
            written: self.written - before.written,
        }
    }
}

/// A copy that is about to be brought up to date.
pub(super) struct Rejoin<'a> {
    pair: &'a Pair,
    source: &'a Machine,
    before: Traffic,
    out_of_sync: u64,
    start: Instant,
}

/// How it went.
pub(super) struct Rejoined {
    /// What the source said that the other one lacks, before.
    pub(super) out_of_sync: u64,
    /// What was sent, and written meanwhile.
    pub(super) traffic: Traffic,
    /// From before the other one came to when both copies counted.
    pub(super) took: Duration,
}

impl<'a> Rejoin<'a> {
    /// The other node is still away.
    pub(super) fn begin(pair: &'a Pair, source: &'a Machine) -> anyhow::Result<Self> {
        // In this order: what is written in between is counted as written meanwhile.
        let before = Traffic::so_far(pair, source)?;
        let out_of_sync = figure(pair, source, "/out_of_sync_bytes")?;
        Ok(Self {
            pair,
            source,
            before,
            out_of_sync,
            start: Instant::now(),
        })
    }

    /// Waits until both copies count.
    pub(super) fn end(self) -> anyhow::Result<Rejoined> {
        self.pair.wait_in_sync()?;
        let took = self.start.elapsed();
        let now = Traffic::so_far(self.pair, self.source)?;
        Ok(Rejoined {
            out_of_sync: self.out_of_sync,
            traffic: now.since(self.before),
            took,
        })
    }
}

impl Rejoined {
    /// No more was sent than what differed (and a tenth), and `more` bytes.
    pub(super) fn require_only_differences(&self, more: u64) -> anyhow::Result<()> {
        let allowed = self.out_of_sync * 11 / 10 + more;
        ensure!(
            self.traffic.resync <= allowed,
            "the resync sent {} bytes; {} differed, and {more} more are allowed",
            self.traffic.resync,
            self.out_of_sync
        );
        ensure!(self.traffic.resync > 0, "nothing was sent");
        Ok(())
    }

    /// In words.
    pub(super) fn tell(&self, what: &str) {
        say(format!(
            "{what}: {:.2} MiB differed, {:.2} MiB sent ({:.2} MiB left the card with everything else), \
             {:.2} MiB written meanwhile, {:.1} s",
            mib(self.out_of_sync),
            mib(self.traffic.resync),
            mib(self.traffic.card),
            mib(self.traffic.written),
            self.took.as_secs_f32()
        ));
    }
}

/// For the eye only.
pub(super) fn mib(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "figures for the eye")]
    let bytes = bytes as f64;
    bytes / MIB
}

/// Writes so many single blocks all over a part of the volume.
pub(super) fn scatter(node: &Machine, from: u64, size: u64, bytes: u64) -> anyhow::Result<()> {
    fio(
        node,
        &format!(
            "--rw=randwrite --bs=4k --iodepth=16 --offset={from} --size={size} --io_size={bytes}"
        ),
    )
}

/// A job that must do well.
pub(super) fn fio(node: &Machine, job: &str) -> anyhow::Result<()> {
    let output = node.exec(&fio_script(job), FIO_LIMIT)?;
    ensure!(output.ok(), "fio {job} on {}: {output:?}", node.name());
    Ok(())
}

/// The command for a job on the volume.
pub(super) fn fio_script(job: &str) -> String {
    format!(
        "fio --name=job --filename={DEVICE} --ioengine=libaio --direct=1 --randrepeat=0 --output-format=terse {job}"
    )
}
