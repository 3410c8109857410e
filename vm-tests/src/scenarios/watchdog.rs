//! A server whose control plane, or whose whole user space, stands still is reset by its watchdog, and the service runs on the
//! other one afterwards.

use std::time::{Duration, Instant};

use anyhow::ensure;

use super::power::endless;
use crate::checker::{Durability, check};
use crate::controlled::{Arbiter, Controlled};
use crate::machine::Machine;
use crate::progress::say;
use crate::scenario::{Context, Scenario};
use crate::writer::Fsync;

pub(super) const LONG: &[Scenario] = &[Scenario {
    name: "watchdog-resets",
    about: "lockstepd, then all of user space, is stopped on the active server: its watchdog resets it, then the service runs on the other one",
    run: watchdog_resets,
}];

const ACKS: usize = 300;
/// As below.
const TIMEOUT: Duration = Duration::from_secs(6);
/// What an emulated machine, and a device that counts in two halves, may be late.
const LATE: Duration = Duration::from_secs(20);
const SERVICE_LIMIT: Duration = Duration::from_secs(90);
/// Nothing that uses the volume: what is judged is when it runs, and where.
const RESOURCES: &str = r#"
[[groups.data.resources]]
kind = "program"
name = "service"
command = ["/bin/sh", "-c", "while :; do sleep 1; done"]

[watchdog]
timeout_s = 6
"#;
/// QEMU's card; a kernel without its driver has one in software.
const LOAD_DRIVER: &str = "modprobe i6300esb || modprobe softdog; test -c /dev/watchdog";
const STATUS_LIMIT: Duration = Duration::from_secs(60);
/// Everybody but process 1 and the shell itself, which has nothing to do then.
const STALL: &str = "sleep 1; kill -STOP -1; sleep 1000";
const STALL_LIMIT: Duration = Duration::from_secs(600);

struct Bed {
    controlled: Controlled,
}

impl Bed {
    /// The service runs on this server, under an armed watchdog.
    fn runs_on(&self, node: &Machine) -> anyhow::Result<()> {
        // What was said last counts: the log outlives a reset.
        self.controlled
            .wait_log_within(node, "LS6040", "online", SERVICE_LIMIT)?;
        self.controlled
            .wait_log(node, "LS6131\\|LS6132", "the watchdog is armed")?;
        // While the other one is away the exit code says so.
        let status = node.exec("lockstep status --json", STATUS_LIMIT)?.stdout;
        ensure!(status.contains("\"armed\""), "{status}");
        Ok(())
    }

    /// It is off within the device's time from `stalled`; until then nothing of the service has started on the other one.
    fn is_reset(&self, node: &Machine, stalled: Instant) -> anyhow::Result<()> {
        let other = self.controlled.pair.other(node);
        let started = self.controlled.count_log(other, "LS6041")?;
        let why = node.wait_off(TIMEOUT + LATE)?;
        let after = stalled.elapsed();
        say(format!(
            "{} was reset after {:.1} s ({why:?})",
            node.name(),
            after.as_secs_f32()
        ));
        let now = self.controlled.count_log(other, "LS6041")?;
        ensure!(
            now == started,
            "a service started on {} before {} was gone\n{}",
            other.name(),
            node.name(),
            self.controlled.logs()
        );
        self.runs_on(other)?;
        say(format!(
            "the service runs on {} {:.1} s after the stall",
            other.name(),
            stalled.elapsed().as_secs_f32()
        ));
        Ok(())
    }

    fn bring_back(&self, node: &Machine) -> anyhow::Result<()> {
        self.controlled.pair.bring_back(node)?;
        node.exec_ok(LOAD_DRIVER)?;
        self.controlled.start_control(node)?;
        self.controlled.pair.wait_in_sync()?;
        self.controlled.wait_ready()
    }
}

fn watchdog_resets(context: &Context) -> anyhow::Result<()> {
    let bed = Bed {
        controlled: Controlled::boot_with(context, Arbiter::Witness, RESOURCES, &[])?,
    };
    let pair = &bed.controlled.pair;
    let (one, two) = (pair.one(), pair.two());
    // After lockstepd began: a device that is not there yet is tried again.
    for node in [one, two] {
        node.exec_ok(LOAD_DRIVER)?;
    }
    bed.runs_on(one)?;

    // What it keeps up stands still; the data plane goes on, so nobody takes anything over before.
    let writer = endless(1, Fsync::Every(16)).start(one)?;
    pair.wait_acks(1, ACKS)?;
    let stalled = Instant::now();
    one.exec_ok("pkill -STOP -x lockstepd")?;
    bed.is_reset(one, stalled)?;
    drop(writer);
    let judged = check(
        &pair.cluster.ledger(&[1]),
        two.disk("data")?,
        Durability::Acked,
    )?;
    judged.require_ok()?;
    bed.bring_back(one)?;

    // All of user space. The command's handle lives until the machine is gone: dropped, it would ask the agent to end it.
    let writer = endless(2, Fsync::Every(16)).start(two)?;
    pair.wait_acks(2, ACKS)?;
    let stall = two.spawn(STALL, STALL_LIMIT)?;
    let stalled = Instant::now();
    let reset = bed.is_reset(two, stalled);
    drop(stall);
    reset?;
    drop(writer);
    let judged = check(
        &pair.cluster.ledger(&[1, 2]),
        one.disk("data")?,
        Durability::Acked,
    )?;
    judged.require_ok()?;
    bed.bring_back(two)?;
    pair.assert_equal_copies()
}
