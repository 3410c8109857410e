//! A volume is made larger while it is written to, and a power cut in the middle of that.
//!
//! The backing device is a linear mapping over a larger disk, enlarged under the running daemon as a
//! logical volume would be. This kernel cannot resize a live ublk device: the new size shows from the next
//! activation on, and the command and the status say so.

use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::checker::{Durability, check};
use crate::disk::Op;
use crate::machine::Machine;
use crate::progress::say;
use crate::scenario::{Context, Scenario};
use crate::volume::{DEVICE, Pair, machines};
use crate::wait::wait_until;
use crate::writer::{Fsync, Writer};

use super::power::BLOCKS;

pub(super) const LONG: &[Scenario] = &[Scenario {
    name: "grow",
    about: "a volume grows under a ledger writer; a power cut in the middle of a grow, nothing lost, it grows after all",
    run: grow,
}];

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(120);
const FILL_LIMIT: Duration = Duration::from_secs(600);
/// The disk, and how much of it the mapping shows at first, then, and at last.
const DISK_MIB: u64 = 160;
const SIZES_MIB: [u64; 3] = [64, 96, 144];
const BACKING: &str = "/dev/mapper/backing";

fn grow(context: &Context) -> anyhow::Result<()> {
    let pair = make(context)?;
    under_load(&pair)?;
    cut_in_the_middle(&pair)?;
    pair.assert_equal_copies()?;
    file_system(&pair)?;
    ensure!(size_mib(&pair, pair.two())? == SIZES_MIB[2]);
    Ok(())
}

/// A pair on mappings of 64 MiB over larger disks, served by the first node.
fn make(context: &Context) -> anyhow::Result<Pair> {
    let cluster = machines(context, DISK_MIB * MIB)?;
    for node in cluster.iter() {
        // What was there before must not be seen in the new area.
        let noise = vec![0x5a; 1 << 20];
        for piece in SIZES_MIB[0]..DISK_MIB {
            node.disk("data")?.write_at(piece * MIB, &noise)?;
        }
        map(node, SIZES_MIB[0])?;
    }
    let pair = Pair::create_on(cluster, BACKING)?;
    pair.wait_in_sync()?;
    pair.lockstep(pair.one(), "activate")?;
    Ok(pair)
}

fn table(node: &Machine, mib: u64) -> String {
    format!("0 {} linear {} 0", mib * 2048, node.disk_path("data"))
}

fn map(node: &Machine, mib: u64) -> anyhow::Result<()> {
    let table = table(node, mib);
    node.exec_ok(&format!(
        "DM_DISABLE_UDEV=1 dmsetup create backing --table '{table}'"
    ))
    .map(drop)
}

/// What `lvextend` does.
fn enlarge(node: &Machine, mib: u64) -> anyhow::Result<()> {
    let table = table(node, mib);
    node.exec_ok(&format!(
        "export DM_DISABLE_UDEV=1; dmsetup reload backing --table '{table}' && dmsetup resume backing"
    ))
    .map(drop)
}

fn size_mib(pair: &Pair, node: &Machine) -> anyhow::Result<u64> {
    let size = pair.status(node)?["size_bytes"].as_u64();
    Ok(size.context("no size in the status")? / MIB)
}

/// A grow that is refused, then one under a writer; the new area is used after the next activation.
fn under_load(pair: &Pair) -> anyhow::Result<()> {
    let (one, two) = (pair.one(), pair.two());
    let writer = Writer {
        fsync: Fsync::Every(16),
        seconds: 30,
        ..Writer::new(1, DEVICE, BLOCKS)
    };
    let running = writer.start(one)?;
    pair.wait_acks(1, 100)?;
    enlarge(one, SIZES_MIB[1])?;
    pair.refused(one, "grow", "LS1053")?;
    pair.refused(two, "grow", "LS1001")?;
    pair.refused(one, "grow --size 1MiB", "LS1051")?;
    enlarge(two, SIZES_MIB[1])?;
    let said = pair.lockstep(one, "grow")?;
    ensure!(
        said.contains("still shows 64.0 MiB"),
        "the command says: {said}"
    );
    let status = pair.status(one)?;
    let codes = status["problems"].to_string();
    ensure!(
        codes.contains("LS2051"),
        "the status does not say it: {status:#}"
    );
    for node in [one, two] {
        ensure!(size_mib(pair, node)? == SIZES_MIB[1]);
    }
    let output = running.wait()?;
    ensure!(output.ok(), "the writer saw an error: {output:?}");
    check(
        &pair.cluster.ledger(&[1]),
        one.disk("data")?,
        Durability::Acked,
    )?
    .require_ok()?;
    anew(pair, one, SIZES_MIB[1])?;
    // Behind the old end there is nothing, on both; and it can be written.
    let old = SIZES_MIB[0];
    let new = SIZES_MIB[1] - SIZES_MIB[0];
    one.exec_ok(&format!(
        "dd if={DEVICE} bs=1M skip={old} count={new} iflag=direct status=none | cmp -n $(({new} << 20)) - /dev/zero"
    ))?;
    one.exec_ok(&format!(
        "dd if=/dev/urandom of={DEVICE} bs=1M seek={old} count=4 oflag=direct status=none"
    ))?;
    say("grown under the writer; after the next activation the new area reads as zeroes");
    pair.assert_equal_copies()
}

/// The device is made anew and shows everything.
fn anew(pair: &Pair, node: &Machine, mib: u64) -> anyhow::Result<()> {
    pair.lockstep(node, "deactivate")?;
    pair.lockstep(node, "activate")?;
    let shown = node.exec_ok(&format!("blockdev --getsize64 {DEVICE}"))?;
    ensure!(shown.trim() == (mib * MIB).to_string(), "it shows {shown}");
    Ok(())
}

/// The active node loses power while the other one prepares: both keep the old size, and the next try grows.
fn cut_in_the_middle(pair: &Pair) -> anyhow::Result<()> {
    let (one, two) = (pair.one(), pair.two());
    for node in [one, two] {
        enlarge(node, SIZES_MIB[2])?;
    }
    let writer = Writer {
        fsync: Fsync::Every(16),
        seconds: 5,
        ..Writer::new(2, DEVICE, BLOCKS)
    };
    let output = writer.start(one)?.wait()?;
    ensure!(output.ok(), "the writer saw an error: {output:?}");
    // The standby's zeroes are not answered: it cannot finish its part. Nothing else is under way there, for the
    // kernel waits for that when the protecting mapping is enlarged, before the first zero.
    two.disk("data")?.stick(Op::Write);
    let mut command = one.spawn("lockstep volume grow data", LIMIT)?;
    wait_until(LIMIT, "the grow to be prepared here", || {
        command.stdout_so_far()?;
        let growing = &pair.status(one)?["growing"];
        let (zeroed, new) = (&growing["zeroed_bytes"], &growing["new_bytes"]);
        Ok(zeroed.as_u64() > Some(0) && zeroed == new)
    })?;
    one.power_cut(31)?;
    drop(command);
    two.disk("data")?.heal();
    pair.wait_status(two, "/link/state", "down")?;
    pair.takeover(two)?;
    ensure!(
        size_mib(pair, two)? == SIZES_MIB[1],
        "visible before both had it"
    );
    let ledger = pair.cluster.ledger(&[2]);
    check(&ledger, two.disk("data")?, Durability::Acked)?.require_ok()?;
    pair.boot_again(one)?;
    map(one, SIZES_MIB[2])?;
    pair.start(one)?;
    pair.wait_in_sync()?;
    for node in [one, two] {
        ensure!(size_mib(pair, node)? == SIZES_MIB[1]);
    }
    pair.assert_equal_copies()?;
    let said = pair.lockstep(two, "grow")?;
    say(format!(
        "after the cut: {}",
        said.lines().next().unwrap_or_default()
    ));
    pair.lockstep(two, "deactivate")?;
    pair.lockstep(one, "activate")?;
    let shown = one.exec_ok(&format!("blockdev --getsize64 {DEVICE}"))?;
    ensure!(shown.trim() == (SIZES_MIB[2] * MIB).to_string(), "{shown}");
    Ok(())
}

/// A file system takes the new room, and a power cut after that loses nothing of it.
fn file_system(pair: &Pair) -> anyhow::Result<()> {
    let (one, two) = (pair.one(), pair.two());
    // Over what the ledger wrote.
    one.exec_ok(&format!(
        "mkfs.ext4 -q -F {DEVICE} 48M && mkdir -p /mnt && mount {DEVICE} /mnt"
    ))?;
    one.exec_ok(&format!(
        "echo kept >/mnt/kept && sync && resize2fs {DEVICE} 2>&1"
    ))?;
    // More than the file system had before it was enlarged.
    let fill = one.exec(
        "dd if=/dev/urandom of=/mnt/large bs=1M count=64 status=none && sync && \
         sha256sum /mnt/large >/mnt/sum && sync",
        FILL_LIMIT,
    )?;
    ensure!(fill.ok(), "{fill:?}");
    one.power_cut(41)?;
    pair.wait_status(two, "/link/state", "down")?;
    pair.takeover(two)?;
    let found = two.exec(
        &format!(
            "mkdir -p /mnt && mount {DEVICE} /mnt && sha256sum -c /mnt/sum && grep kept /mnt/kept && \
             umount /mnt && fsck.ext4 -fn {DEVICE}"
        ),
        FILL_LIMIT,
    )?;
    ensure!(found.ok(), "{found:?}");
    pair.boot_again(one)?;
    map(one, SIZES_MIB[2])?;
    pair.start(one)?;
    pair.wait_in_sync()?;
    say("ext4 was enlarged, filled, and taken over after a power cut");
    pair.assert_equal_copies()
}
