//! The traps of ublk: a daemon that dies at a bad moment must be gone, and a clean shutdown must end.

use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::machine::Machine;
use crate::network::Net;
use crate::progress::say;
use crate::scenario::{Context, Scenario};
use crate::volume::{DEVICE, Pair, VOLUME_BYTES, machines, with_disks};
use crate::wait::wait_until;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "trap-kill-during-start",
        about: "kill -9 while the device is being started on a stuck disk: no daemon remains, the next one serves",
        run: kill_during_start,
    },
    Scenario {
        name: "trap-kill-during-stop",
        about: "kill -9 while the device is being stopped with writes parked: no daemon remains, the next one serves",
        run: kill_during_stop,
    },
    Scenario {
        name: "trap-memory-pressure",
        about: "writing far more than memory through the page cache does not stall the daemon, and a kill there is survived",
        run: memory_pressure,
    },
    Scenario {
        name: "trap-clean-shutdown",
        about: "at a clean shutdown umount never hangs, with its own file system mounted and the daemon told to end first",
        run: clean_shutdown,
    },
];

const LIMIT: Duration = Duration::from_secs(60);
const GONE: Duration = Duration::from_secs(20);

/// The killed processes are really gone: not in D state, not zombies of a dead leader.
fn wait_gone(node: &Machine, pids: &str) -> anyhow::Result<()> {
    wait_until(GONE, "the killed daemon to be gone", || {
        Ok(node
            .exec(
                &format!("for p in {pids}; do [ ! -e /proc/$p ] || exit 1; done"),
                GONE,
            )?
            .ok())
    })
    .with_context(|| {
        node.exec_ok("ps -eo pid,stat,wchan:30,args | grep -v '\\[' | head -40")
            .unwrap_or_default()
    })
    .map(drop)
}

fn daemons(node: &Machine) -> anyhow::Result<String> {
    Ok(node
        .exec_ok("pgrep -f '[u]blk-mirror run' | tr '\\n' ' '")?
        .trim()
        .to_owned())
}

fn kill_daemon(node: &Machine) -> anyhow::Result<()> {
    let pids = daemons(node)?;
    ensure!(!pids.is_empty(), "no daemon runs");
    node.exec_ok(&format!("kill -9 {pids}"))?;
    wait_gone(node, &pids)
}

fn boot(context: &Context) -> anyhow::Result<Pair> {
    let pair = Pair::create(machines(context, VOLUME_BYTES)?)?;
    pair.wait_in_sync()?;
    Ok(pair)
}

/// A partition scan of the new device would read from a disk that does not answer.
fn kill_during_start(context: &Context) -> anyhow::Result<()> {
    let pair = boot(context)?;
    let one = pair.one();
    let disk = one.disk("data")?;
    for round in 1..=3_u32 {
        disk.stick(crate::disk::Op::Read);
        let activate = one.spawn("lockstep volume activate data", LIMIT)?;
        let wait = format!("sleep 0.{round}");
        one.exec_ok(&wait)?;
        one.exec_ok("kill -9 $(pgrep -f '[u]blk-mirror run')")?;
        disk.heal();
        drop(activate);
        wait_until(GONE, "the daemon to be gone", || {
            Ok(daemons_or_none(one)?.is_empty())
        })?;
        pair.start(one)?;
        pair.wait_in_sync()?;
        say(format!(
            "round {round}: killed {round}00 ms into the activation, restarted"
        ));
        let status = pair.status(one)?;
        if status["role"] == "active" {
            pair.lockstep(one, "deactivate")?;
        }
    }
    pair.lockstep(one, "activate")?;
    one.exec_ok(&format!(
        "dd if=/dev/urandom of={DEVICE} bs=1M count=4 oflag=direct status=none"
    ))?;
    pair.assert_equal_copies()
}

fn daemons_or_none(node: &Machine) -> anyhow::Result<String> {
    node.exec_ok("pgrep -f '[u]blk-mirror run' | tr '\\n' ' ' || true")
}

fn kill_during_stop(context: &Context) -> anyhow::Result<()> {
    let pair = boot(context)?;
    let (one, two) = (pair.one(), pair.two());
    pair.lockstep(one, "activate")?;
    pair.cluster.cut(one, two, Net::Mirror)?;
    pair.wait_status(one, "/link/state", "down")?;
    // A write that waits for the peer, then an end by force, then the kill.
    let parked = one.spawn(
        &format!("dd if=/dev/zero of={DEVICE} bs=4k count=1 oflag=direct"),
        LIMIT,
    )?;
    wait_until(LIMIT, "the parked write", || {
        Ok(pair.status(one)?["inflight"].as_u64() > Some(0))
    })?;
    pair.refused(one, "deactivate", "LS1009")?;
    let stop = one.spawn("lockstep volume deactivate data --force", LIMIT)?;
    kill_daemon(one)?;
    drop((parked, stop));
    one.hear(Net::Mirror)?;
    two.hear(Net::Mirror)?;
    pair.start(one)?;
    pair.wait_in_sync()?;
    if pair.status(one)?["role"] != "active" {
        pair.lockstep(one, "activate")?;
    }
    one.exec_ok(&format!(
        "dd if=/dev/urandom of={DEVICE} bs=1M count=4 oflag=direct status=none"
    ))?;
    pair.assert_equal_copies()
}

fn memory_pressure(context: &Context) -> anyhow::Result<()> {
    let builder = with_disks(context.cluster(), VOLUME_BYTES)
        .binaries(&context.product()?)
        .memory_mib(400);
    let pair = Pair::active(builder.boot()?)?;
    let one = pair.one();
    one.exec_ok(&format!(
        "mkfs.ext4 -q {DEVICE} && mkdir -p /mnt && mount {DEVICE} /mnt"
    ))?;
    // Memory is taken by somebody who does not give it back; then the page cache is flooded.
    let hog = "mount -t tmpfs -o size=90% none /media && \
               free=$(awk '/MemAvailable/{print int($2/1024)-60}' /proc/meminfo); \
               [ $free -lt 8 ] || dd if=/dev/urandom of=/media/hog bs=1M count=$free status=none; grep MemAvailable /proc/meminfo";
    say(one.exec_ok(hog)?);
    let flood = "for round in 1 2 3; do dd if=/dev/urandom of=/mnt/flood bs=1M count=60 status=none || exit 1; done; sync -f /mnt/flood";
    let running = one.spawn(flood, Duration::from_secs(300))?;
    wait_until(LIMIT, "dirty pages on their way", || {
        Ok(pair
            .status(one)?
            .pointer("/counters/writes")
            .and_then(serde_json::Value::as_u64)
            > Some(20))
    })?;
    kill_daemon(one)?;
    pair.start(one)?;
    let output = running.wait()?;
    ensure!(output.ok(), "{output:?}\n{}", pair.logs());
    one.exec_ok("umount /mnt && rm -f /media/hog")?;
    one.exec_ok(&format!("fsck.ext4 -f -n {DEVICE}"))?;
    pair.wait_in_sync()?;
    pair.assert_equal_copies()
}

fn clean_shutdown(context: &Context) -> anyhow::Result<()> {
    let pair = boot(context)?;
    let one = pair.one();
    pair.lockstep(one, "activate")?;
    one.exec_ok(&format!(
        "mkfs.ext4 -q {DEVICE} && mkdir -p /mnt && mount {DEVICE} /mnt && echo kept >/mnt/file"
    ))?;
    // The daemon dies and is started again below its own mount: it must not pin it.
    kill_daemon(one)?;
    pair.start(one)?;
    one.exec_ok("cat /mnt/file && echo more >>/mnt/file")?;
    // What a shutdown does: a polite end for everybody, then umount, then the rest.
    one.exec_ok("pkill -TERM -f '[u]blk-mirror run'")?;
    let umount = one.exec("umount /mnt", GONE)?;
    ensure!(
        umount.ok() && !umount.timed_out,
        "umount at shutdown: {umount:?}\n{}",
        pair.logs()
    );
    pair.lockstep(one, "deactivate")?;
    one.exec_ok("pkill -TERM -f '[u]blk-mirror run'")?;
    wait_until(GONE, "the daemon to end", || {
        Ok(daemons_or_none(one)?.is_empty())
    })?;
    one.power_off()?;
    pair.boot_again(one)?;
    pair.start(one)?;
    pair.wait_in_sync()?;
    pair.lockstep(one, "activate")?;
    let read = one.exec_ok(&format!(
        "mkdir -p /mnt && mount {DEVICE} /mnt && cat /mnt/file && umount /mnt"
    ))?;
    ensure!(read == "kept\nmore", "{read}");
    pair.assert_equal_copies()
}
