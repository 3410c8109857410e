//! Reads, writes, flushes and discards of the device, and the two copies afterwards.

use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::measure::figure;
use crate::network::Net;
use crate::progress::say;
use crate::scenario::{Context, Scenario};
use crate::volume::{DEVICE, Pair, machines};
use crate::wait::wait_until;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "volume-io",
        about: "fio verifies 4 KiB to 1 MiB at queue depths 1 to 32, O_DIRECT and page cache; both copies end identical",
        run: volume_io,
    },
    Scenario {
        name: "first-copy",
        about: "the first copy survives a broken link, loses to newer writes, and its target is not promotable before its end",
        run: first_copy,
    },
];

const FIO_LIMIT: Duration = Duration::from_secs(180);

/// Block size, queue depth, O_DIRECT or not, more.
const JOBS: &[(&str, u32, &str, &str)] = &[
    ("4k", 1, "1", "--rw=randwrite --fsync=8"),
    ("4k", 32, "1", "--rw=randwrite"),
    ("4k", 16, "1", "--rw=randrw --fdatasync=16"),
    ("16k", 8, "1", "--rw=randwrite --sync=dsync"),
    ("64k", 32, "1", "--rw=write"),
    ("1m", 1, "1", "--rw=write --fsync=4"),
    ("1m", 8, "1", "--rw=randwrite"),
    ("4k", 1, "0", "--rw=randwrite --end_fsync=1"),
    ("128k", 1, "0", "--rw=write --end_fsync=1"),
];

fn volume_io(context: &Context) -> anyhow::Result<()> {
    let pair = Pair::boot(context)?;
    let one = pair.one();
    for (block_size, depth, direct, more) in JOBS {
        let engine = if *direct == "1" { "libaio" } else { "psync" };
        let script = format!(
            "fio --name=job --filename={DEVICE} --ioengine={engine} --direct={direct} --bs={block_size} \
             --iodepth={depth} --size=24m --io_size=6m --verify=crc32c --verify_fatal=1 --do_verify=1 --randrepeat=0 \
             {more} --output-format=terse"
        );
        let output = one.exec(&script, FIO_LIMIT)?;
        ensure!(
            output.ok(),
            "fio {block_size} depth {depth} direct {direct} {more}: {output:?}"
        );
    }
    say(format!("{} fio jobs verified", JOBS.len()));
    one.exec_ok("sync")?;
    pair.assert_equal_copies()?;
    discard(&pair)?;
    let (active, standby) = (
        one.disk("data")?.counters(),
        pair.two().disk("data")?.counters(),
    );
    ensure!(
        standby.flushes > 0 && active.flushes > 0,
        "flushes reach both disks: {active:?} {standby:?}"
    );
    say(format!(
        "flushes: {} on the active disk, {} on the standby's",
        active.flushes, standby.flushes
    ));
    let log = one.exec_ok("cat /var/log/lockstep/data.log")?;
    ensure!(!log.contains("panic"), "{log}");
    Ok(())
}

/// What was discarded or zeroed reads as zeroes on both sides.
fn discard(pair: &Pair) -> anyhow::Result<()> {
    let one = pair.one();
    one.exec_ok(&format!(
        "tr '\\0' 'x' </dev/zero | dd of={DEVICE} bs=1M count=16 iflag=fullblock oflag=direct status=none && \
         blkdiscard --offset 1048576 --length 6295552 {DEVICE} && blkdiscard -z --offset 9437184 --length 12288 {DEVICE}"
    ))?;
    let zeroes = "cmp -n 6295552 /dev/zero -i 0:1048576";
    one.exec_ok(&format!(
        "{zeroes} {DEVICE} && cmp -n 12288 -i 0:9437184 /dev/zero {DEVICE}"
    ))?;
    one.exec_ok(&format!(
        "dd if={DEVICE} bs=1M count=1 iflag=direct status=none | tr -d 'x' | wc -c | grep -qx 0"
    ))?;
    pair.assert_equal_copies()
}

/// Large enough that much is left when the first checkpoint is past.
const FIRST_COPY_BYTES: u64 = 160 << 20;

fn first_copy(context: &Context) -> anyhow::Result<()> {
    let cluster = machines(context, FIRST_COPY_BYTES)?;
    let fill = "tr '\\0' 'o' </dev/zero | dd of=/dev/disk/by-id/virtio-node1-data bs=1M count=80 iflag=fullblock conv=fsync status=none";
    cluster.machine("node1").exec_ok(fill)?;
    for node in ["node1", "node2"] {
        // A slow disk, so that something can happen during the copy.
        cluster
            .machine(node)
            .disk("data")?
            .slow(Duration::from_millis(150));
    }
    let pair = Pair::create(cluster)?;
    let (one, two) = (pair.one(), pair.two());
    pair.wait_status(one, "/peer_copy", "copying")?;
    pair.lockstep(one, "activate")?;
    pair.refused(two, "activate", "LS1001")?;
    let progress = pair.lockstep(one, "status");
    ensure!(
        progress.is_err() || progress?.contains('%'),
        "the copy's progress is shown"
    );
    // Newer writes all over the volume while the copy runs.
    let writes = one.spawn(
        &format!(
            "fio --name=new --filename={DEVICE} --ioengine=libaio --direct=1 --bs=16k --iodepth=8 --size=90m \
             --io_size={NEWER_BYTES} --rw=randwrite --verify=crc32c --verify_fatal=1 --randrepeat=0"
        ),
        FIO_LIMIT,
    )?;
    break_link_during_copy(&pair)?;
    for node in [one, two] {
        node.disk("data")?.heal();
    }
    let output = writes.wait()?;
    ensure!(
        output.ok(),
        "application writes during the copy: {output:?}"
    );
    pair.wait_in_sync()?;
    one.exec_ok("sync")?;
    pair.assert_equal_copies()
}

/// What a write that the target misses takes back from what it had: the blocks of the fio job.
const MISSED_BYTES: u64 = 16 * 1024;
/// Writes of the fio job that may be in flight when its counter is read.
const WRITES_IN_FLIGHT: u64 = 8;
/// Written by the fio job: a write that is mirrored counts towards the checkpoint, and what is written after it
/// is not covered.
const NEWER_BYTES: u64 = 4 << 20;
/// After so much the target flushes, and what it has by then is kept whatever happens to the link.
const CHECKPOINT_BYTES: u64 = 64 << 20;
/// The link breaks when so much is copied: the flush of the checkpoint is past.
const BREAK_BYTES: u64 = CHECKPOINT_BYTES + (16 << 20);

fn break_link_during_copy(pair: &Pair) -> anyhow::Result<()> {
    let (one, two) = (pair.one(), pair.two());
    // Without a link nothing is copied, and the status has no progress.
    let copied = || -> anyhow::Result<Option<u64>> {
        let status = pair.status(one)?;
        let value = status.pointer("/progress/copied_bytes");
        Ok(value.and_then(serde_json::Value::as_u64))
    };
    let mut before = 0;
    wait_until(FIO_LIMIT, "a checkpoint and more copied", || {
        before = copied()?.unwrap_or(0);
        Ok(before > BREAK_BYTES)
    })?;
    let writes = figure(pair, one, "/counters/writes")?;
    pair.cluster.cut(one, two, Net::Mirror)?;
    for node in [one, two] {
        pair.wait_status(node, "/link/state", "down")?;
    }
    pair.refused(two, "takeover --confirm 'node1 is off'", "LS1004")?;
    one.hear(Net::Mirror)?;
    two.hear(Net::Mirror)?;
    let mut after = 0;
    wait_until(FIO_LIMIT, "the copy again", || {
        let now = copied()?;
        after = now.unwrap_or(0);
        Ok(now.is_some())
    })
    .with_context(|| pair.logs())?;
    pair.wait_status(one, "/progress/cause", "resumed")?;
    let total = figure(pair, one, "/progress/total_bytes")?;
    let missed = figure(pair, one, "/counters/writes")? - writes + WRITES_IN_FLIGHT;
    say(format!(
        "the link broke at {} of {} MiB; the copy went on at {} MiB; at most {missed} writes were missed",
        before >> 20,
        total >> 20,
        after >> 20
    ));
    ensure!(
        total >= FIRST_COPY_BYTES,
        "a first copy of {total} bytes: not the whole volume"
    );
    ensure!(
        after + missed * MISSED_BYTES + 2 * NEWER_BYTES >= CHECKPOINT_BYTES,
        "the copy lost more than newer writes, {missed} of them missed, explain: {after} of {before} bytes"
    );
    Ok(())
}
