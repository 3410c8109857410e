//! What a resync costs: bytes on the wire, metadata writes, the application's throughput. Measured, and told.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use vm_guest::pattern::mix;

use super::measure::{FIO_LIMIT, Rejoin, Traffic, figure, fio, fio_script, mib, scatter};
use crate::machine::{Machine, Running};
use crate::network::Net;
use crate::progress::{self, say};
use crate::scenario::{Context, Scenario};
use crate::volume::{Pair, machines};
use crate::wait::wait_until;

/// For `cargo verify --all`.
pub(super) const LONG: &[Scenario] = &[
    Scenario {
        name: "resync-figures",
        about: "a volume of 4 GiB: what full and marked copies send, metadata writes of a hot set",
        run: resync_figures,
    },
    Scenario {
        name: "resync-beside",
        about: "fio beside a resync: the application goes first, and the resync goes on",
        run: resync_beside,
    },
];

const MIB: u64 = 1 << 20;
const VOLUME_BYTES: u64 = 4096 * MIB;
/// Equal random data on both disks before the first copy; the rest is zeroes on both.
const EQUAL_BYTES: u64 = 256 * MIB;
const FULL_COPY_LIMIT: Duration = Duration::from_secs(900);
const SCATTERED_BYTES: u64 = 64 * MIB;
const HOT_BYTES: u64 = 64 * MIB;
/// Writes of 4 KiB into the hot set whose metadata writes are counted.
const HOT_WRITES: u64 = 4096;
const ROUNDS: usize = 3;
/// What the resync of a round has to copy: enough to last longer than what is measured beside it.
const BACKLOG_BYTES: u64 = 192 * MIB;
/// Where it begins: behind the hot set.
const BACKLOG_OFFSET: u64 = HOT_BYTES;
/// Of the resync alone.
const ALONE_BYTES: u64 = 48 * MIB;
const FIO_SECONDS: u64 = 20;
const LIMIT: Duration = Duration::from_secs(180);
/// What the data disks can do beside a resync: a tenth of the requests and a twentieth of the bytes of a common rented
/// disk, so that the disk is what fio and the resync share, and not the one emulated processor.
const DISK_REQUESTS_PER_S: u64 = 300;
const DISK_BYTES_PER_S: u64 = 6 * MIB;
/// What a full copy of equal disks may put on the card.
const EQUAL_PERCENT_MAX: f64 = 2.0;
/// What a resync of single blocks may put on the card, of what differed.
const SCATTERED_PERCENT_MAX: f64 = 110.0;
/// Of its throughput alone the application keeps at least this much beside a resync.
const BESIDE_PERCENT_MIN: f64 = 85.0;
/// And the resync this much of its own.
const RESYNC_PERCENT_MIN: f64 = 25.0;

fn resync_figures(context: &Context) -> anyhow::Result<()> {
    let pair = full_copy(context)?;
    pair.lockstep(pair.one(), "activate")?;
    hot_set(&pair)?;
    scattered(&pair)?;
    pair.one().exec_ok("sync")?;
    pair.assert_equal_copies()
}

fn resync_beside(context: &Context) -> anyhow::Result<()> {
    let pair = Pair::boot_sized(context, BACKLOG_OFFSET + BACKLOG_BYTES)?;
    fio(
        pair.one(),
        &format!("--rw=write --bs=1m --iodepth=4 --size={HOT_BYTES}"),
    )?;
    for node in [pair.one(), pair.two()] {
        node.limit_disk("data", DISK_REQUESTS_PER_S, DISK_BYTES_PER_S)?;
    }
    beside_a_resync(&pair)?;
    pair.one().exec_ok("sync")?;
    pair.assert_equal_copies()
}

fn percent(part: u64, whole: u64) -> f64 {
    mib(part) * 100.0 / mib(whole)
}

/// The first copy, of two disks that are equal already.
fn full_copy(context: &Context) -> anyhow::Result<Pair> {
    let cluster = machines(context, VOLUME_BYTES)?;
    let step = progress::step("filling both disks with the same");
    let mut random = 1;
    for offset in (0..EQUAL_BYTES).step_by(1 << 20) {
        let mut chunk = Vec::with_capacity(1 << 20);
        while chunk.len() < 1 << 20 {
            random = mix(random);
            chunk.extend(random.to_le_bytes());
        }
        for node in ["node1", "node2"] {
            cluster
                .machine(node)
                .disk("data")?
                .write_at(offset, &chunk)?;
        }
    }
    step.done();
    let pair = Pair::create(cluster)?;
    let one = pair.one();
    let start = Instant::now();
    wait_until(FULL_COPY_LIMIT, "the first copy", || {
        let status = pair.status(one)?;
        Ok(status["peer_copy"] == "in-sync")
    })
    .with_context(|| pair.logs())?;
    let took = start.elapsed();
    pair.wait_in_sync()?;
    let sent = Traffic::so_far(&pair, one)?;
    say(format!(
        "full copy of equal disks: {:.0} MiB, payload {:.1} % of it, on the card {:.1} %; {:.1} MiB/s",
        mib(VOLUME_BYTES),
        percent(sent.resync, VOLUME_BYTES),
        percent(sent.card, VOLUME_BYTES),
        mib(VOLUME_BYTES) / took.as_secs_f64()
    ));
    ensure!(
        percent(sent.card, VOLUME_BYTES) < EQUAL_PERCENT_MAX,
        "equal disks were sent: {sent:?}"
    );
    pair.assert_equal_copies()?;
    Ok(pair)
}

fn metadata_writes(pair: &Pair, node: &Machine) -> anyhow::Result<u64> {
    Ok(
        figure(pair, node, "/counters/log_writes")?
            + figure(pair, node, "/counters/bitmap_writes")?,
    )
}

/// A working set that is hot costs no metadata writes.
fn hot_set(pair: &Pair) -> anyhow::Result<()> {
    let (one, two) = (pair.one(), pair.two());
    fio(
        one,
        &format!("--rw=write --bs=1m --iodepth=4 --size={HOT_BYTES}"),
    )?;
    let before = [metadata_writes(pair, one)?, metadata_writes(pair, two)?];
    let disks = [one.disk("meta")?.counters(), two.disk("meta")?.counters()];
    fio(
        one,
        &format!(
            "--rw=randwrite --bs=4k --iodepth=8 --size={HOT_BYTES} --io_size={}",
            HOT_WRITES * 4096
        ),
    )?;
    let after = [metadata_writes(pair, one)?, metadata_writes(pair, two)?];
    let now = [one.disk("meta")?.counters(), two.disk("meta")?.counters()];
    say(format!(
        "hot set: {HOT_WRITES} writes into {:.0} MiB, metadata writes by counter {} and {}, by the metadata disks {} and {}",
        mib(HOT_BYTES),
        after[0] - before[0],
        after[1] - before[1],
        now[0].writes - disks[0].writes,
        now[1].writes - disks[1].writes
    ));
    ensure!(
        after == before,
        "{HOT_WRITES} writes into a hot set cost metadata writes: {before:?} before, {after:?} after"
    );
    Ok(())
}

fn away(pair: &Pair) -> anyhow::Result<()> {
    let one = pair.one();
    pair.cluster.cut(one, pair.two(), Net::Mirror)?;
    pair.wait_status(one, "/link/state", "down")?;
    pair.takeover(one)
}

fn back(pair: &Pair) -> anyhow::Result<()> {
    pair.one().hear(Net::Mirror)?;
    pair.two().hear(Net::Mirror)
}

/// Single blocks all over the volume.
fn scattered(pair: &Pair) -> anyhow::Result<()> {
    let one = pair.one();
    away(pair)?;
    let metadata = metadata_writes(pair, one)?;
    let start = Instant::now();
    scatter(one, 0, VOLUME_BYTES, SCATTERED_BYTES)?;
    let took = start.elapsed();
    say(format!(
        "{:.0} MiB of single blocks written alone in {:.1} s with {} metadata writes",
        mib(SCATTERED_BYTES),
        took.as_secs_f32(),
        metadata_writes(pair, one)? - metadata
    ));
    let rejoin = Rejoin::begin(pair, one)?;
    back(pair)?;
    let rejoined = rejoin.end()?;
    rejoined.tell("scattered blocks");
    say(format!(
        "payload {:.1} % of what differed, on the card {:.1} %",
        percent(rejoined.traffic.resync, rejoined.out_of_sync),
        percent(rejoined.traffic.card, rejoined.out_of_sync)
    ));
    ensure!(
        percent(rejoined.traffic.card, rejoined.out_of_sync) <= SCATTERED_PERCENT_MAX,
        "more than what differed was sent: {:?}",
        rejoined.traffic
    );
    rejoined.require_only_differences(0)
}

/// Bytes that both data disks were given, by the harness's own count: it costs the guests nothing.
#[derive(Clone, Copy)]
struct Sample {
    at: Instant,
    active: u64,
    standby: u64,
}

impl Sample {
    fn now(pair: &Pair) -> anyhow::Result<Self> {
        Ok(Self {
            at: Instant::now(),
            active: pair.one().disk("data")?.counters().bytes_written,
            standby: pair.two().disk("data")?.counters().bytes_written,
        })
    }

    /// MiB a second of the application and of the resync since an earlier moment.
    fn rates(self, from: Self) -> (f64, f64) {
        let seconds = (self.at - from.at).as_secs_f64();
        let application = self.active - from.active;
        let resync = (self.standby - from.standby).saturating_sub(application);
        (mib(application) / seconds, mib(resync) / seconds)
    }
}

/// Lets fio write into the hot set; application and resync meanwhile, from its first write to its last.
fn fio_rates(pair: &Pair) -> anyhow::Result<(f64, f64)> {
    let one = pair.one();
    let job = format!(
        "--rw=randwrite --bs=4k --iodepth=8 --size={HOT_BYTES} --time_based --runtime={FIO_SECONDS}"
    );
    let before = Sample::now(pair)?;
    let running: Running = one.spawn(&fio_script(&job), FIO_LIMIT)?;
    wait_until(LIMIT, "fio's first write", || {
        Ok(Sample::now(pair)?.active > before.active)
    })?;
    let from = Sample::now(pair)?;
    let mut to = from;
    let length = Duration::from_secs(FIO_SECONDS) * 9 / 10;
    wait_until(LIMIT, "fio's time", || {
        to = Sample::now(pair)?;
        Ok(to.at - from.at >= length)
    })?;
    let output = running.wait()?;
    ensure!(output.ok(), "{output:?}");
    Ok(to.rates(from))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// One round: fio alone, the resync alone, both.
fn round(pair: &Pair, number: usize) -> anyhow::Result<[f64; 4]> {
    let one = pair.one();
    let (fio_alone, _) = fio_rates(pair)?;
    away(pair)?;
    fio(
        one,
        &format!("--rw=write --bs=1m --iodepth=4 --offset={BACKLOG_OFFSET} --size={BACKLOG_BYTES}"),
    )?;
    let before = Sample::now(pair)?;
    back(pair)?;
    wait_until(LIMIT, "the resync's first bytes", || {
        Ok(Sample::now(pair)?.standby > before.standby)
    })?;
    let from = Sample::now(pair)?;
    let mut to = from;
    wait_until(LIMIT, "the resync alone", || {
        to = Sample::now(pair)?;
        Ok(to.standby - from.standby >= ALONE_BYTES)
    })?;
    let (_, resync_alone) = to.rates(from);
    let (fio_beside, resync_beside) = fio_rates(pair)?;
    let still = pair.status(one)?;

    ensure!(
        still["peer_copy"] == "copying",
        "the resync ended before the measurement: {still:#}"
    );
    wait_until(FULL_COPY_LIMIT, "the resync's end", || {
        Ok(pair.status(one)?["peer_copy"] == "in-sync")
    })?;
    pair.wait_in_sync()?;
    let round = [fio_alone, fio_beside, resync_alone, resync_beside];
    say(format!(
        "round {number}: fio alone {fio_alone:.2} MiB/s, beside a resync {fio_beside:.2}; \
         resync alone {resync_alone:.2}, beside fio {resync_beside:.2}"
    ));
    Ok(round)
}

/// The application goes first, and the resync makes progress all the same.
fn beside_a_resync(pair: &Pair) -> anyhow::Result<()> {
    let mut rounds = Vec::new();
    for number in 1..=ROUNDS {
        rounds.push(round(pair, number).with_context(|| pair.logs())?);
    }
    let of = |index: usize| median(rounds.iter().map(|round| round[index]).collect());
    let kept = of(1) * 100.0 / of(0);
    let progress = of(3) * 100.0 / of(2);
    say(format!(
        "medians of {ROUNDS}: fio keeps {kept:.0} % of its throughput (at least {BESIDE_PERCENT_MIN} %), \
         the resync {progress:.0} % of its rate (at least {RESYNC_PERCENT_MIN} %)"
    ));
    ensure!(
        kept >= BESIDE_PERCENT_MIN,
        "the resync takes too much from fio: {rounds:?}"
    );
    ensure!(
        progress >= RESYNC_PERCENT_MIN,
        "the resync gives way too much: {rounds:?}"
    );
    Ok(())
}
