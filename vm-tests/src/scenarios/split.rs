//! Two histories: refused, shown, and ended by an operator who discards one of them.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use vm_guest::record::Kind;

use super::measure::{Traffic, figure, mib, scatter};
use super::power::{BLOCKS, endless};
use crate::checker::{Durability, check};
use crate::machine::{Machine, Running};
use crate::network::Net;
use crate::progress::say;
use crate::scenario::{Context, Scenario};
use crate::volume::{DEVICE, Pair, VOLUME_BYTES};
use crate::writer::{Fsync, Writer};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "split-brain",
    about: "both sides go alone on wrong words and write: refused, shown with both sides' figures, one discarded, only what differs copied, and what it had alone exported",
    run: split_brain,
}];

/// Where the ledger ends, and single blocks begin.
const LEDGER_BYTES: u64 = BLOCKS * 4096;
const SCATTERED_BYTES: u64 = 2 << 20;
const ACKS: usize = 300;
/// A place that only the discarded side writes to, behind all others: which MiB, and what is kept of it.
const ALONE_MIB: u64 = VOLUME_BYTES / 4 * 3 / (1 << 20);
const IMAGE: &str = "/root/discarded.img";
/// What a resync sends besides data: 32 bytes for a block of 4096, at most.
const DIGESTS: u64 = 100;

fn write(pair: &Pair, node: &Machine, run: u32) -> anyhow::Result<Running> {
    let writer = Writer {
        blocks: BLOCKS / 4,
        ..endless(run, Fsync::Every(16))
    };
    let running = writer.start(node)?;
    pair.wait_acks(run, ACKS)?;
    Ok(running)
}

fn end(node: &Machine, writer: Running) -> anyhow::Result<()> {
    writer.kill()?;
    let output = writer.wait()?;
    ensure!(
        !output.stderr.contains("failed"),
        "the writer saw an error: {output:?}"
    );
    node.exec_ok("sync").map(drop)
}

fn split_brain(context: &Context) -> anyhow::Result<()> {
    let pair = Pair::boot(context)?;
    let (one, two) = (pair.one(), pair.two());
    let common = write(&pair, one, 1)?;
    end(one, common)?;
    pair.refused(one, "resolve", "LS1060")?;
    pair.refused(two, "force --confirm data", "LS1003")?;
    go_alone(&pair)?;
    let writers = [write(&pair, one, 2)?, write(&pair, two, 3)?];
    for (node, writer) in [one, two].into_iter().zip(writers) {
        end(node, writer)?;
        scatter(
            node,
            LEDGER_BYTES,
            VOLUME_BYTES / 2 - LEDGER_BYTES,
            SCATTERED_BYTES,
        )?;
    }
    let alone = write_alone(two)?;
    for node in [one, two] {
        node.hear(Net::Mirror)?;
    }
    let unique = shown(&pair)?;
    pair.refused(two, "resolve --discard node2 --confirm data", "LS1015")?;
    pair.lockstep(two, "deactivate --force")?;
    pair.refused(two, "resolve --discard node1 --confirm data", "LS1061")?;
    pair.refused(two, "resolve --discard node2 --confirm node2", "LS1062")?;
    no_room(&pair, two)?;
    let before = Traffic::so_far(&pair, one)?;
    discard(&pair, two)?;
    pair.wait_in_sync()?;
    let sent = Traffic::so_far(&pair, one)?.since(before).resync;
    let allowed = (unique[0] + unique[1]) + (unique[0] + unique[1]) / DIGESTS;
    say(format!(
        "{:.2} MiB were on node1 alone and {:.2} MiB on node2 at most; {:.2} MiB sent of {:.0} MiB",
        mib(unique[0]),
        mib(unique[1]),
        mib(sent),
        mib(VOLUME_BYTES)
    ));
    ensure!(
        sent > 0 && sent <= allowed && allowed < VOLUME_BYTES / 2,
        "{sent} bytes were sent, {unique:?} were unique"
    );
    judge(&pair, one)?;
    find_alone(two, &alone, unique[1])?;
    let operations = pair.status(two)?["operations"].clone();
    let newest = operations.pointer("/0/operation").and_then(Value::as_str);
    let time = operations.pointer("/0/at_s").and_then(Value::as_u64);
    ensure!(
        newest == Some("discard") && time.is_some(),
        "{operations:#}"
    );
    Ok(())
}

/// Content that no other node has; its checksum.
fn write_alone(node: &Machine) -> anyhow::Result<String> {
    node.exec_ok(&format!(
        "dd if=/dev/urandom of={DEVICE} bs=1M seek={ALONE_MIB} count=1 oflag=direct status=none"
    ))?;
    sum(node, DEVICE, "iflag=direct")
}

fn sum(node: &Machine, file: &str, flags: &str) -> anyhow::Result<String> {
    node.exec_ok(&format!(
        "dd if={file} bs=1M skip={ALONE_MIB} count=1 {flags} status=none | sha256sum"
    ))
}

/// A file system that is mounted after the daemon's start, and too small.
fn no_room(pair: &Pair, node: &Machine) -> anyhow::Result<()> {
    node.exec_ok("mkdir -p /mnt/small && mount -t tmpfs -o size=1m tmpfs /mnt/small")?;
    let words = "resolve --discard node2 --confirm data --keep /mnt/small/x.blocks";
    let output = pair.try_lockstep(node, words)?;
    ensure!(
        output.code == 1 && output.stderr.contains("LS1077"),
        "{output:?}"
    );
    say(output.stderr.trim());
    node.exec_ok("umount /mnt/small").map(drop)
}

/// What the discarded side had alone is not on its copy any more, and still there.
fn find_alone(node: &Machine, alone: &str, unique: u64) -> anyhow::Result<()> {
    let list = node.exec_ok("lockstep volume discarded list")?;
    ensure!(list.contains("data of node2"), "{list}");
    let file = list.lines().next().context("a file")?.to_string();
    let show = node.exec_ok(&format!("lockstep volume discarded show --all {file}"))?;
    ensure!(show.contains("every checksum is right"), "{show}");
    let export = format!("lockstep volume discarded export {file} --to {IMAGE}");
    say(node.exec_ok(&export)?.trim());
    ensure!(
        sum(node, IMAGE, "")? == alone,
        "the image holds something else there"
    );
    let blocks = node.exec_ok(&format!("stat -c %s {IMAGE} && stat -c '%b %B' {IMAGE}"))?;
    let figures: Vec<u64> = blocks
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let &[size, count, bytes] = figures.as_slice() else {
        anyhow::bail!("{blocks}");
    };
    say(format!(
        "{:.2} MiB were unique, the image takes {:.2} MiB",
        mib(unique),
        mib(count * bytes)
    ));
    ensure!(
        size >= VOLUME_BYTES / 2 && count * bytes <= unique + (1 << 20),
        "{blocks}"
    );
    // The device itself is in nobody's hands here, and fenced; a disk in use is refused.
    let onto = node.exec(
        &format!("lockstep volume discarded export {file} --onto /dev/vdb --confirm data"),
        Duration::from_secs(60),
    )?;
    ensure!(onto.code == 1 && onto.stderr.contains("LS4014"), "{onto:?}");
    let device =
        "modprobe loop && truncate -s 200M /root/loop.img && losetup -f --show /root/loop.img";
    let device = node.exec_ok(device)?.trim().to_string();
    node.exec_ok(&format!(
        "lockstep volume discarded export {file} --onto {device} --confirm data"
    ))?;
    ensure!(
        sum(node, &device, "")? == alone,
        "the device holds something else"
    );
    node.exec_ok(&format!("losetup -d {device} && rm /root/loop.img {IMAGE}"))
        .map(drop)
}

/// The connection breaks, and an operator vouches wrongly on both sides.
fn go_alone(pair: &Pair) -> anyhow::Result<()> {
    let (one, two) = (pair.one(), pair.two());
    pair.cluster.cut(one, two, Net::Mirror)?;
    for node in [one, two] {
        pair.wait_status(node, "/link/state", "down")?;
        pair.takeover(node)?;
    }
    Ok(())
}

/// Both nodes show both sides, in the status and for the operator's choice; bytes that each has alone.
fn shown(pair: &Pair) -> anyhow::Result<[u64; 2]> {
    let (one, two) = (pair.one(), pair.two());
    let mut unique = [0; 2];
    for (node, unique) in [one, two].into_iter().zip(&mut unique) {
        let other = pair.other(node).name();
        pair.wait_status(node, "/split/other/node", other)?;
        *unique = figure(pair, node, "/split/this/unique_bytes")?;
        ensure!(
            (SCATTERED_BYTES / 2..VOLUME_BYTES / 2).contains(unique),
            "{} shows {unique} bytes of its own",
            node.name()
        );
        for side in ["this", "other"] {
            let wrote = figure(pair, node, &format!("/split/{side}/last_write_s"))?;
            ensure!(wrote > 1_600_000_000, "{side} wrote last at {wrote}");
        }
        let text = pair.lockstep(node, "resolve")?;
        for words in [
            "split brain: both sides",
            "(this node",
            "(the other node",
            "only here",
            "resolve data --discard node1 --confirm data",
            "resolve data --discard node2 --confirm data",
        ] {
            ensure!(text.contains(words), "no `{words}` in:\n{text}");
        }
        let status = pair.try_lockstep(node, "status")?;
        ensure!(status.stdout.contains("only here"), "{status:?}");
        say(format!("{}:\n{text}", node.name()));
    }
    let (first, second) = (
        pair.status(one)?["split"].clone(),
        pair.status(two)?["split"].clone(),
    );
    ensure!(
        first["this"]["common_view_id"] == second["this"]["common_view_id"]
            && first["this"]["view_id"] == second["other"]["view_id"],
        "{first:#}\n{second:#}"
    );
    Ok(unique)
}

/// The nodes meet now and then, for a moment: the command waits then.
fn discard(pair: &Pair, node: &Machine) -> anyhow::Result<()> {
    let command = format!("resolve --discard {} --confirm data", node.name());
    let output = pair.try_lockstep(node, &command)?;
    ensure!(output.ok(), "{output:?}");
    say(output.stdout.trim());
    Ok(())
}

/// Everything that the kept side acknowledged is on both copies, and nothing of the other side.
fn judge(pair: &Pair, kept: &Machine) -> anyhow::Result<()> {
    kept.exec_ok("sync")?;
    let ledger = pair.cluster.ledger(&[1, 2]);
    ensure!(ledger.count(Kind::Ack) >= 2 * ACKS, "few acknowledgements");
    for node in [pair.one(), pair.two()] {
        check(&ledger, node.disk("data")?, Durability::Acked)?
            .require_ok()
            .with_context(|| format!("on {}", node.name()))?;
    }
    pair.assert_equal_copies()
}
