//! The harness itself: its faults must really happen, and its judge must really judge.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use vm_guest::record::Kind;

use crate::binaries::workspace;
use crate::checker::{Durability, check};
use crate::cluster::Cluster;
use crate::disk::{DiskMode, Op, PowerCut, assert_identical};
use crate::machine::{Machine, Power};
use crate::network::{Net, remove_leftovers};
use crate::process::{Guarded, run};
use crate::progress::say;
use crate::scenario::{Context, Scenario};
use crate::wait::wait_until;
use crate::writer::{Fsync, Writer};

const MIB: u64 = 1 << 20;
const DISK_BYTES: u64 = 64 * MIB;
const BLOCKS: u64 = 512;
/// Enough that a cut loses some; less than what the workers write between two flushes.
const UNFLUSHED_WRITES: usize = 40;
const LIMIT: Duration = Duration::from_secs(60);
const BUILD_LIMIT: Duration = Duration::from_secs(600);

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "harness-machines",
        about: "two machines boot, obey, reach each other over three networks and reboot for real",
        run: machines,
    },
    Scenario {
        name: "harness-power-cut",
        about: "a power cut loses unflushed writes only, and the judge sees exactly that",
        run: power_cut,
    },
    Scenario {
        name: "harness-disk-faults",
        about: "errors, stuck and slow requests and silent damage of a disk are seen in the machine",
        run: disk_faults,
    },
    Scenario {
        name: "harness-networks",
        about: "unplugged, silently lost, late packets and a paused machine are seen by the other",
        run: networks,
    },
    Scenario {
        name: "harness-leaves-nothing",
        about: "a killed harness leaves no QEMU, and the next one removes its network namespace",
        run: leaves_nothing,
    },
];

fn pings(from: &Machine, to: &Machine, net: Net) -> anyhow::Result<bool> {
    let command = format!("ping -q -c 1 -W 1 -I {} {}", net.card(), to.address(net));
    Ok(from.exec(&command, LIMIT)?.ok())
}

fn machines(context: &Context) -> anyhow::Result<()> {
    let cluster = context
        .cluster()
        .disk("data", DISK_BYTES, DiskMode::Volatile)
        .boot()?;
    let (one, two) = (cluster.machine("node1"), cluster.machine("node2"));
    ensure!(one.exec_ok("hostname")? == "node1");
    let output = one.exec("echo out; echo err >&2; exit 7", LIMIT)?;
    ensure!(
        (output.code, output.stdout.as_str(), output.stderr.as_str()) == (7, "out\n", "err\n"),
        "{output:?}"
    );
    ensure!(
        one.exec_with(&["wc", "-c"], &vec![b'x'; 300_000], LIMIT)?
            .stdout
            .trim()
            == "300000"
    );
    let output = one.exec("sleep 100 & wait", Duration::from_secs(1))?;
    ensure!(output.timed_out && output.code == 128 + 9, "{output:?}");

    commands_in_parallel(one)?;
    let data: Vec<u8> = (0..MIB + 5)
        .map(|number| u8::try_from(number % 251).unwrap_or(0))
        .collect();
    one.put("/tmp/a/file", 0o640, &data)?;
    ensure!(
        one.get("/tmp/a/file", 0, data.len() + 10)? == data,
        "a file came back changed"
    );

    for net in Net::ALL {
        let reached = wait_until(LIMIT, "ping", || pings(one, two, net))?;
        say(format!(
            "{} reaches {} over {} after {} ms",
            one.name(),
            two.name(),
            net.card(),
            reached.as_millis()
        ));
    }
    ensure!(one.exec_ok("getent hosts node2")?.starts_with("10.77.1.2"));

    real_reboots(one, two)
}

/// New boots of the same disks.
fn real_reboots(one: &Machine, two: &Machine) -> anyhow::Result<()> {
    let pattern = "head -c 1M /dev/zero | tr '\\0' 'p' | dd of=/dev/vdb bs=64k oflag=direct iflag=fullblock conv=fsync";
    one.exec_ok(pattern)?;
    two.exec_ok(pattern)?;
    assert_identical(one.disk("data")?, two.disk("data")?, 0..DISK_BYTES)?;
    let before = one.boot_id()?;
    one.power_off()?;
    ensure!(one.power() == Power::Off(None) && one.exec("true", LIMIT).is_err());
    say(format!(
        "a boot takes {:.1} s",
        one.power_on()?.as_secs_f32()
    ));
    ensure!(one.boot_id()? != before, "not a real reboot");
    ensure!(
        one.exec_ok("head -c 4 /dev/vdb")? == "pppp",
        "the disk lost what was flushed"
    );
    drop(two.spawn("reboot", LIMIT)?.wait());
    let reason = two.wait_off(LIMIT)?;
    ensure!(reason.as_deref() == Some("guest-reset"), "{reason:?}");
    two.power_on()?;
    two.exec_ok("true").map(drop)
}

fn commands_in_parallel(one: &Machine) -> anyhow::Result<()> {
    let start = Instant::now();
    let sleepers = (0..4)
        .map(|_| one.spawn("sleep 2", LIMIT))
        .collect::<anyhow::Result<Vec<_>>>()?;
    for sleeper in sleepers {
        ensure!(sleeper.wait()?.ok());
    }
    ensure!(
        start.elapsed() < Duration::from_secs(6),
        "four commands did not run at the same time"
    );
    let start = Instant::now();
    for _ in 0..10 {
        one.exec_ok("true")?;
    }
    say(format!(
        "one command takes {} ms",
        start.elapsed().as_millis() / 10
    ));
    Ok(())
}

fn power_cut(context: &Context) -> anyhow::Result<()> {
    let cluster = context
        .cluster()
        .nodes(1)
        .disk("volatile", DISK_BYTES, DiskMode::Volatile)
        .disk("durable", DISK_BYTES, DiskMode::Durable)
        .boot()?;
    let node = cluster.machine("node1");
    let device = |name: &str| node.disk_path(name);
    let writers = [
        Writer {
            fsync: Fsync::Every(32),
            seconds: 60,
            ..Writer::new(1, device("volatile"), BLOCKS)
        },
        Writer {
            seconds: 60,
            port: 1,
            ..Writer::new(2, device("durable"), BLOCKS)
        },
    ];
    let running = writers
        .iter()
        .map(|writer| writer.start(node))
        .collect::<anyhow::Result<Vec<_>>>()?;
    wait_until(LIMIT, "acknowledged writes and flushes", || {
        let (volatile, durable) = (cluster.ledger(&[1]), cluster.ledger(&[2]));
        Ok(volatile.count(Kind::FlushAck) >= 8 && durable.count(Kind::Ack) >= 1000)
    })?;
    // From here on no flush gets through, so there is something to lose. Right after one that did: the writers
    // flush in step, and before their next one stands in their way they write enough.
    let disk = node.disk("volatile")?;
    let flushes = cluster.ledger(&[1]).count(Kind::FlushAck);
    wait_until(LIMIT, "a flush", || {
        Ok(cluster.ledger(&[1]).count(Kind::FlushAck) > flushes)
    })?;
    disk.stick(Op::Flush);
    let flushed = cluster.ledger(&[1]).count(Kind::Ack);
    wait_until(LIMIT, "unflushed writes", || {
        Ok(cluster.ledger(&[1]).count(Kind::Ack) >= flushed + UNFLUSHED_WRITES)
    })?;
    let cut = node.power_cut(42)?;
    disk.heal();
    drop(running);
    judge_the_cut(&cluster, node, cut)?;
    a_second_run(&cluster, node)
}

fn judge_the_cut(cluster: &Cluster, node: &Machine, cut: PowerCut) -> anyhow::Result<()> {
    let (volatile, durable) = (cluster.ledger(&[1]), cluster.ledger(&[2]));
    say(format!(
        "{} and {} acknowledged writes; the cut lost {}, tore {}, kept {} of the unflushed ones",
        volatile.count(Kind::Ack),
        durable.count(Kind::Ack),
        cut.lost,
        cut.torn,
        cut.kept
    ));
    let disk = node.disk("volatile")?;
    check(&volatile, disk, Durability::Flushed)?
        .require_ok()
        .context("flushed writes")?;
    let verdict = check(&volatile, disk, Durability::Acked)?;
    ensure!(
        !verdict.ok(),
        "the disk kept every unflushed write, so it proves nothing: {verdict}"
    );
    say(format!(
        "the control fails as it must: {}",
        verdict.to_string().lines().next().unwrap_or_default()
    ));
    check(&durable, node.disk("durable")?, Durability::Acked)?
        .require_ok()
        .context("a durable disk")?;
    ensure!(
        node.disk("volatile")?.counters().flushes > 0,
        "no flush reached the disk"
    );
    Ok(())
}

/// Life goes on: a second run on the same blocks, and the same verdict read through the machine.
fn a_second_run(cluster: &Cluster, node: &Machine) -> anyhow::Result<()> {
    let path = node.disk_path("volatile");
    let disk = node.disk("volatile")?;
    node.power_on()?;
    let again = Writer {
        fsync: Fsync::Every(16),
        writes: 500,
        ..Writer::new(3, path.as_str(), BLOCKS)
    };
    ensure!(again.start(node)?.wait()?.ok());
    let ledger = cluster.ledger(&[1, 3]);
    let verdict = check(&ledger, &node.device(&path), Durability::Flushed)?;
    verdict
        .require_ok()
        .context("the second run, read in the machine")?;
    let sector = ledger
        .entries
        .iter()
        .rev()
        .find(|entry| entry.record.kind == Kind::Ack)
        .context("no ack")?;
    let offset = sector.record.block * 4096;
    disk.corrupt(offset..offset + 1)?;
    ensure!(
        check(&ledger, disk, Durability::Flushed)?.corrupt.count == 1,
        "one flipped byte was not seen"
    );
    Ok(())
}

fn disk_faults(context: &Context) -> anyhow::Result<()> {
    let cluster = context
        .cluster()
        .nodes(1)
        .disk("data", DISK_BYTES, DiskMode::Volatile)
        .boot()?;
    let node = cluster.machine("node1");
    let disk = node.disk("data")?;
    let write = "dd if=/dev/zero of=/dev/vdb bs=4k count=4 seek=16 oflag=direct status=none";
    let read = "dd if=/dev/vdb of=/dev/null bs=4k count=4 skip=16 iflag=direct status=none";
    let flush = "sync -d /dev/vdb";
    node.exec_ok(&format!("{write} && {read} && {flush}"))?;
    ensure!(
        node.exec_ok("cat /sys/block/vdb/queue/write_cache")? == "write back",
        "the machine would not flush"
    );

    disk.fail(Op::Write, 64 << 10..65 << 10);
    ensure!(!node.exec(write, LIMIT)?.ok(), "a write did not fail");
    ensure!(node.exec(read, LIMIT)?.ok(), "only writes fail");
    disk.heal();
    disk.fail(Op::Read, 0..u64::MAX);
    ensure!(!node.exec(read, LIMIT)?.ok(), "a read did not fail");
    disk.heal();
    disk.fail(Op::Flush, 0..u64::MAX);
    let output = node.exec(&format!("{write} conv=fsync"), LIMIT)?;
    ensure!(!output.ok(), "a flush did not fail");
    disk.heal();
    node.exec_ok(&format!("{write} && {read}"))?;
    say("errors are seen");

    disk.stick(Op::Write);
    let stuck = node.spawn(write, LIMIT)?;
    let held = Instant::now();
    node.exec_ok(read)?;
    let waiting = node.exec("sleep 2; pgrep -x dd", LIMIT)?;
    ensure!(waiting.ok(), "the stuck write was answered");
    disk.heal();
    ensure!(
        stuck.wait()?.ok(),
        "a write that was released did not succeed"
    );
    say(format!(
        "a write was held for {:.1} s while reads went on",
        held.elapsed().as_secs_f32()
    ));

    disk.slow(Duration::from_millis(200));
    let start = Instant::now();
    node.exec_ok(write)?;
    let took = start.elapsed();
    disk.heal();
    ensure!(
        took >= Duration::from_millis(800),
        "four writes of 200 ms took {took:?}"
    );
    say(format!("four slow writes took {} ms", took.as_millis()));

    disk.corrupt(MIB..MIB + 4096)?;
    ensure!(
        node.exec_ok(
            "dd if=/dev/vdb bs=1M skip=1 count=1 iflag=direct status=none | head -c 4 | od -An -tx1"
        )? == "a5 a5 a5 a5"
    );
    Ok(())
}

fn networks(context: &Context) -> anyhow::Result<()> {
    let cluster = context.cluster().boot()?;
    let (one, two) = (cluster.machine("node1"), cluster.machine("node2"));
    for net in [Net::Inter, Net::Mirror] {
        wait_until(LIMIT, "ping", || pings(one, two, net))?;
    }
    one.link_down(Net::Mirror)?;
    wait_until(LIMIT, "carrier lost", || {
        Ok(one.exec_ok("cat /sys/class/net/mirror0/carrier")? == "0")
    })?;
    ensure!(
        !pings(two, one, Net::Mirror)? && pings(two, one, Net::Inter)?,
        "only the mirror network was unplugged"
    );
    one.link_up(Net::Mirror)?;
    wait_until(LIMIT, "ping after plugging in", || {
        pings(two, one, Net::Mirror)
    })?;
    say("an unplugged link is seen");

    // One way: two hears nothing from one, but one hears two.
    let count = "cat /sys/class/net/mirror0/statistics/rx_packets";
    two.ignore(one, Net::Mirror)?;
    let before: u64 = one.exec_ok(count)?.parse()?;
    ensure!(!pings(two, one, Net::Mirror)?, "an answer got through");
    let after: u64 = one.exec_ok(count)?.parse()?;
    ensure!(after > before, "the other way is lost as well");
    ensure!(
        one.exec_ok("cat /sys/class/net/mirror0/carrier")? == "1",
        "loss must be silent"
    );
    ensure!(pings(two, one, Net::Inter)?);
    two.hear(Net::Mirror)?;
    wait_until(LIMIT, "ping after the loss", || {
        pings(two, one, Net::Mirror)
    })?;
    say("one-way silent loss is seen");

    one.delay(Net::Mirror, Duration::from_millis(50))?;
    two.delay(Net::Mirror, Duration::from_millis(50))?;
    let output = one.exec_ok(&format!("ping -q -c 3 {}", two.address(Net::Mirror)))?;
    let average = output
        .split('/')
        .nth(4)
        .and_then(|text| text.parse::<f64>().ok())
        .context("ping's average")?;
    ensure!((95.0..400.0).contains(&average), "round trip {average} ms");
    one.delay(Net::Mirror, Duration::ZERO)?;
    two.delay(Net::Mirror, Duration::ZERO)?;
    say(format!("50 ms each way make a round trip of {average} ms"));

    two.pause()?;
    ensure!(!pings(one, two, Net::Inter)?, "a paused machine answered");
    two.resume()?;
    wait_until(LIMIT, "ping after the pause", || {
        pings(one, two, Net::Inter)
    })?;
    say("a pause is seen");
    Ok(())
}

/// Processes whose command line names the run directory of `harness`.
fn machines_of(harness: u32) -> Vec<u32> {
    let needle = format!("lockstep-vm-{harness}-");
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok());
    let is_ours = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&needle)
    };
    pids.filter(is_ours).collect()
}

/// The `vm` program beside this one, whichever of the harness's programs this is.
fn harness_program() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let program = own.with_file_name("vm");
    if program != own {
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.current_dir(workspace()).args([
            "build",
            "--quiet",
            "--release",
            "--package",
            "vm-tests",
            "--bin",
            "vm",
        ]);
        run(&mut build, BUILD_LIMIT)?;
    }
    Ok(program)
}

fn leaves_nothing(context: &Context) -> anyhow::Result<()> {
    let said = context.artifacts().join("inner");
    let mut command = Command::new(harness_program()?);
    command
        .args([
            "exec",
            "echo up > /dev/ttyS0; sleep 1000",
            "--limit",
            "1000",
        ])
        .stdin(Stdio::null());
    command
        .stdout(fs::File::create(&said)?)
        .stderr(fs::File::create(&said)?);
    let mut inner = Guarded::spawn(command, "an inner harness")?;
    let pid = inner.pid();
    let console = context
        .artifacts()
        .with_file_name("exec")
        .join("node1.console");
    wait_until(LIMIT, "the inner machine", || {
        if inner.try_wait()?.is_some() {
            bail!("the inner harness ended: {}", fs::read_to_string(&said)?);
        }
        let text = fs::read(&console).unwrap_or_default();
        Ok(!machines_of(pid).is_empty() && String::from_utf8_lossy(&text).contains("\nup"))
    })?;
    inner.kill();
    let gone = wait_until(LIMIT, "the end of its QEMU", || {
        Ok(machines_of(pid).is_empty())
    })?;
    say(format!(
        "its QEMU ended {} ms after it was killed",
        gone.as_millis()
    ));
    remove_leftovers()?;
    let namespace = format!("/run/netns/lockstep-vm-{pid}-0");
    ensure!(!Path::new(&namespace).exists(), "{namespace} is left");
    ensure!(
        !std::env::temp_dir()
            .join(format!("lockstep-vm-{pid}-0"))
            .exists(),
        "its directory is left"
    );
    Ok(())
}
