//! A standby's copy taken out of the view in a planned way, read as it was, and given back.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use vm_guest::record::Kind;

use super::measure::Rejoin;
use super::power::{BLOCKS, endless};
use crate::checker::{Durability, check};
use crate::machine::Machine;
use crate::progress::say;
use crate::scenario::{Context, Scenario};
use crate::volume::{DEVICE, Pair};
use crate::wait::wait_until;
use crate::writer::Fsync;

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "isolate-backup",
    about: "under the ledger writer the standby is isolated, read twice through its read-only device, and attached: \
            nothing lost, the image stands, only what was missed is copied",
    run: isolate_backup,
}];

/// The read-only device.
const ISOLATED: &str = "/dev/lockstep/data.isolated";
const LEDGER_BYTES: u64 = BLOCKS * 4096;
const ACKS_BEFORE: usize = 300;
const ACKS_AFTER: usize = 200;
/// Drain, flush, two superblocks; emulated machines on a busy host.
const STALL_LIMIT: Duration = Duration::from_secs(10);
const READ_LIMIT: Duration = Duration::from_secs(180);

/// A writable snapshot over the image, in which the journal is replayed; LS1075 while it stands.
const OVERLAY: &str = r#"
set -e
modprobe -a dm_snapshot loop
truncate -s 64M /tmp/cow
COW=$(losetup -f --show /tmp/cow)
SECTORS=$(blockdev --getsz /dev/lockstep/data.isolated)
echo "0 $SECTORS snapshot /dev/lockstep/data.isolated $COW N 8" | dmsetup create data-image
# There is no udev here.
dmsetup mknodes data-image
mount /dev/mapper/data-image /mnt
grep -q 'in the image' /mnt/file
echo 'written' >/mnt/other && sync
lockstep volume attach data 2>&1 | grep -q LS1075
umount /mnt
dmsetup remove data-image
losetup -d $COW
rm /tmp/cow
"#;

fn isolate_backup(context: &Context) -> anyhow::Result<()> {
    let pair = Pair::boot(context)?;
    let (active, standby) = (pair.one(), pair.two());
    let writer = endless(1, Fsync::Every(16)).start(active)?;
    pair.wait_acks(1, ACKS_BEFORE)?;
    pair.refused(active, "isolate", "LS1070")?;

    let order = pair.cluster.order();
    let before = order.next();
    let start = Instant::now();
    pair.lockstep(standby, "isolate")?;
    say(format!(
        "isolated after {:.1} s, under load",
        start.elapsed().as_secs_f32()
    ));
    pair.wait_status(active, "/peer_copy", "isolated")?;
    pair.wait_status(active, "/isolated/node", standby.name())?;
    pair.refused(standby, "activate", "LS1074")?;
    let written = standby.disk("data")?.counters().writes;
    let image = the_image_stands(&pair, before)?;
    goes_on(&pair)?;
    writes_fail(standby)?;
    survives_the_daemon(&pair, &image)?;
    ensure!(
        standby.disk("data")?.counters().writes == written,
        "something wrote to the isolated copy"
    );
    let rejoin = Rejoin::begin(&pair, active)?;
    attach_in_use(&pair)?;
    let rejoined = rejoin.end()?;
    rejoined.tell("the isolated copy");
    ensure!(
        rejoined.out_of_sync <= LEDGER_BYTES,
        "{} bytes are marked, and the ledger has {LEDGER_BYTES}",
        rejoined.out_of_sync
    );
    rejoined.require_only_differences(rejoined.traffic.written.min(LEDGER_BYTES))?;

    writer.kill()?;
    let output = writer.wait()?;
    ensure!(
        !output.stderr.contains("failed"),
        "the writer saw an error: {output:?}"
    );
    active.exec_ok("sync")?;
    let ledger = pair.cluster.ledger(&[1]);
    let stall = ledger.longest_stall();
    say(format!(
        "{} writes acknowledged, 0 lost; longest standstill {:.2} s",
        ledger.count(Kind::Ack),
        stall.as_secs_f32()
    ));
    ensure!(stall <= STALL_LIMIT, "writes stood still for {stall:?}");
    for node in [active, standby] {
        check(&ledger, node.disk("data")?, Durability::Acked)?
            .require_ok()
            .with_context(|| format!("on {}", node.name()))?;
    }
    pair.assert_equal_copies()?;
    a_file_system(&pair)
}

/// A digest of all that the read-only device shows, past the page cache.
fn digest(node: &Machine) -> anyhow::Result<String> {
    let script =
        format!("set -o pipefail; dd if={ISOLATED} bs=1M iflag=direct status=none | md5sum");
    let output = node.exec(&script, READ_LIMIT)?;
    ensure!(output.ok(), "{output:?}");
    Ok(output.stdout.trim().to_owned())
}

/// Every write that was acknowledged before the command is in it, and it does not change.
fn the_image_stands(pair: &Pair, before: u64) -> anyhow::Result<String> {
    let standby = pair.two();
    let first = digest(standby)?;
    let promised = pair.cluster.ledger(&[1]).promised_by(before);
    check(&promised, &standby.device(ISOLATED), Durability::Acked)?
        .require_ok()
        .context("the image")?;
    let acks = pair.cluster.ledger(&[1]).count(Kind::Ack);
    pair.wait_acks(1, acks + ACKS_AFTER)?;
    let second = digest(standby)?;
    ensure!(first == second, "the image changed: {first}, then {second}");
    say(format!(
        "{} writes were acknowledged before, all of them are in the image; digest {first} twice",
        promised.count(Kind::Ack)
    ));
    Ok(first)
}

fn goes_on(pair: &Pair) -> anyhow::Result<()> {
    let acks = pair.cluster.ledger(&[1]).count(Kind::Ack);
    pair.wait_acks(1, acks + ACKS_AFTER)
}

fn writes_fail(node: &Machine) -> anyhow::Result<()> {
    for script in [
        format!("dd if=/dev/zero of={ISOLATED} bs=4k count=1 oflag=direct conv=notrunc"),
        format!("blkdiscard {ISOLATED}"),
    ] {
        let output = node.exec(&script, READ_LIMIT)?;
        ensure!(!output.ok(), "`{script}` did not fail: {output:?}");
    }
    let read_only = node.exec_ok(&format!("blockdev --getro {ISOLATED}"))?;
    ensure!(read_only.trim() == "1", "the kernel takes it for writable");
    Ok(())
}

/// The read-only device ends with its daemon; the next daemon makes a fresh one of the same image. A device that
/// is gone has no sectors: the kernel answers a read with its end, not with an error.
fn survives_the_daemon(pair: &Pair, image: &str) -> anyhow::Result<()> {
    let standby = pair.two();
    let old = standby.exec_ok(&format!("readlink -f {ISOLATED}"))?;
    standby.exec_ok(&format!(
        "(exec 3<{ISOLATED}; touch /tmp/held; while [ ! -e /tmp/look ]; do sleep 0.1; done; \
          [ $(dd bs=4k count=1 iflag=direct <&3 2>/dev/null | wc -c) = 0 ] || touch /tmp/old-reads; touch /tmp/looked) \
          >/dev/null 2>&1 & until [ -e /tmp/held ]; do sleep 0.1; done"
    ))?;
    standby.exec_ok("pkill -9 -f '[u]blk-mirror run'")?;
    let gone = || {
        Ok(!standby
            .exec(&format!("test -e {ISOLATED}"), READ_LIMIT)?
            .ok())
    };
    wait_until(
        READ_LIMIT,
        "the read-only device is gone with its daemon",
        gone,
    )?;
    pair.start(standby)?;
    pair.wait_status(standby, "/copy", "isolated")?;
    pair.wait_status(standby, "/isolated/device", ISOLATED)?;
    pair.wait_status(standby, "/link/state", "up")?;
    let fresh = standby.exec_ok(&format!("readlink -f {ISOLATED}"))?;
    standby.exec_ok("touch /tmp/look; until [ -e /tmp/looked ]; do sleep 0.1; done")?;
    let stale = standby.exec("test ! -e /tmp/old-reads", READ_LIMIT)?;
    ensure!(
        stale.ok(),
        "whoever held {} open can read {fresh}",
        old.trim()
    );
    let again = digest(standby)?;
    ensure!(again == image, "the image changed: {image}, then {again}");
    Ok(())
}

/// While somebody reads it an isolation ends only by force; and then for that reader too.
fn attach_in_use(pair: &Pair) -> anyhow::Result<()> {
    let standby = pair.two();
    standby.exec_ok(&format!(
        "(exec 3<{ISOLATED}; touch /tmp/held2; sleep 600) >/dev/null 2>&1 & until [ -e /tmp/held2 ]; do sleep 0.1; done"
    ))?;
    pair.refused(standby, "attach", "LS1075")?;
    pair.lockstep(standby, "attach --force")?;
    let left = standby.exec(&format!("test -e {ISOLATED}"), READ_LIMIT)?;
    ensure!(!left.ok(), "the name is still there");
    Ok(())
}

/// What operations.md says of mounting an image whose journal was not replayed.
fn a_file_system(pair: &Pair) -> anyhow::Result<()> {
    let (active, standby) = (pair.one(), pair.two());
    active.exec_ok(&format!(
        "mkfs.ext4 -q -F -E nodiscard {DEVICE} && mkdir -p /mnt && mount {DEVICE} /mnt && \
         echo 'in the image' >/mnt/file && umount /mnt && mount {DEVICE} /mnt"
    ))?;
    pair.lockstep(standby, "isolate")?;
    active.exec_ok("echo 'not in it' >/mnt/file && sync")?;
    let plain = standby.exec(
        &format!("mkdir -p /mnt && mount -o ro {ISOLATED} /mnt"),
        READ_LIMIT,
    )?;
    ensure!(
        !plain.ok(),
        "a journal was replayed into a read-only device: {plain:?}"
    );
    standby.exec_ok(&format!("mount -o ro,noload {ISOLATED} /mnt"))?;
    let read = standby.exec_ok("cat /mnt/file")?;
    ensure!(read.trim() == "in the image", "the image shows {read:?}");
    pair.refused(standby, "attach", "LS1075")?;
    standby.exec_ok("umount /mnt")?;
    let image = digest(standby)?;
    let output = standby.exec(OVERLAY, READ_LIMIT)?;
    ensure!(output.ok(), "the overlay: {output:?}");
    ensure!(digest(standby)? == image, "the overlay changed the image");
    pair.lockstep(standby, "attach")?;
    pair.wait_in_sync()?;
    active.exec_ok("umount /mnt && sync")?;
    pair.assert_equal_copies()
}
