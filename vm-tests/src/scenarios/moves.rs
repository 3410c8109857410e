//! What operators wish of a group: it moves, is stopped and started, and a node is suspended.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::power::endless;
use crate::checker::{Durability, check};
use crate::controlled::{Arbiter, Controlled};
use crate::machine::Machine;
use crate::progress::say;
use crate::scenario::{Context, Scenario};
use crate::volume::NAME;
use crate::writer::Fsync;

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "planned-move",
    about: "a group moves there and back, is stopped over a power cut, started, and its standby suspended: 0 writes lost",
    run: planned_moves,
}];

const ACKS: usize = 300;
const WISHES_FILE: &str = "/var/lib/lockstep/wishes.json";
const FILE_BYTES_MAX: usize = 64 * 1024;
const COMMAND_LIMIT: Duration = Duration::from_secs(180);
/// Longer than a failover takes.
const NOTHING_FOR: Duration = Duration::from_secs(12);
/// The group's resource: it ends whatever writes.
const RESOURCES: &str = r#"
[[groups.data.resources]]
kind = "exec"
name = "writer"
start = ["/bin/sh", "-c", "exit 0"]
stop = ["/bin/sh", "/root/stop-writer"]
"#;
const STOP_WRITER: &str = "pkill -f 'vm-guest ledger-write[r]'
while pgrep -f 'vm-guest ledger-write[r]' >/dev/null; do sleep 0.1; done
exit 0
";

struct Bed {
    controlled: Controlled,
}

impl Bed {
    fn lockstep(&self, node: &Machine, words: &str) -> anyhow::Result<String> {
        let began = Instant::now();
        let output = node.exec(&format!("lockstep {words}"), COMMAND_LIMIT)?;
        ensure!(
            output.ok(),
            "{}: lockstep {words}: {output:?}\n{}",
            node.name(),
            self.controlled.logs()
        );
        let seconds = began.elapsed().as_secs_f32();
        say(format!("{}: lockstep {words}: {seconds:.1} s", node.name()));
        Ok(output.stdout)
    }

    fn refused(&self, node: &Machine, words: &str, code: &str) -> anyhow::Result<()> {
        let output = node.exec(&format!("lockstep {words}"), COMMAND_LIMIT)?;
        ensure!(
            output.code == 1 && output.stderr.contains(code),
            "{}: lockstep {words} should be refused with {code}: {output:?}",
            node.name()
        );
        Ok(())
    }

    /// The machines' own disks forget with their power: here the state directory is one that does not.
    fn remembers(&self, node: &Machine) -> anyhow::Result<()> {
        let bytes = node.get(WISHES_FILE, 0, FILE_BYTES_MAX)?;
        self.controlled.pair.keep(node, WISHES_FILE, bytes);
        Ok(())
    }

    fn role(&self, node: &Machine, role: &str) -> anyhow::Result<()> {
        let waited = self.controlled.pair.wait_status(node, "/role", role);
        waited.with_context(|| self.controlled.logs()).map(drop)
    }

    /// Under a writer on `node`: what happens in `work`; nothing that was acknowledged is missing on `then`.
    fn under_a_writer(
        &self,
        run: u32,
        node: &Machine,
        then: &Machine,
        work: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let pair = &self.controlled.pair;
        let writer = endless(run, Fsync::Every(16)).start(node)?;
        pair.wait_acks(run, ACKS)?;
        work()?;
        drop(writer);
        let runs: Vec<u32> = (1..=run).collect();
        let ledger = pair.cluster.ledger(&runs);
        check(&ledger, then.disk("data")?, Durability::Acked)?
            .require_ok()
            .with_context(|| format!("in run {run}\n{}", self.controlled.logs()))
    }

    /// Neither node serves, for a while.
    fn nobody_serves(&self, nodes: &[&Machine]) -> anyhow::Result<()> {
        let until = Instant::now() + NOTHING_FOR;
        while Instant::now() < until {
            for node in nodes {
                let status = self.controlled.pair.status(node)?;
                ensure!(
                    status["role"] == "fenced",
                    "{} serves: {status:#}\n{}",
                    node.name(),
                    self.controlled.logs()
                );
            }
        }
        Ok(())
    }
}

fn planned_moves(context: &Context) -> anyhow::Result<()> {
    let files = [("/root/stop-writer", STOP_WRITER)];
    let bed = Bed {
        controlled: Controlled::boot_with(context, Arbiter::Witness, RESOURCES, &files)?,
    };
    let one = bed.controlled.pair.one();
    bed.controlled.wait_log(one, "LS6040", "online")?;
    there_and_back(&bed)?;
    stop_and_start(&bed)?;
    suspend_and_resume(&bed)?;
    bed.controlled.pair.assert_equal_copies()
}

/// The command is given on the node that serves, then on the same one, which does not.
fn there_and_back(bed: &Bed) -> anyhow::Result<()> {
    let pair = &bed.controlled.pair;
    let (one, two) = (pair.one(), pair.two());
    bed.under_a_writer(1, one, two, || {
        bed.lockstep(one, &format!("group move {NAME} --to node2 --wait"))?;
        bed.role(two, "active")?;
        bed.role(one, "fenced")
    })?;
    bed.under_a_writer(2, two, one, || {
        bed.lockstep(one, &format!("group move {NAME} --wait"))?;
        bed.role(one, "active")?;
        bed.role(two, "fenced")
    })
}

/// What is stopped stays stopped when its server boots.
fn stop_and_start(bed: &Bed) -> anyhow::Result<()> {
    let controlled = &bed.controlled;
    let pair = &controlled.pair;
    let (one, two) = (pair.one(), pair.two());
    bed.under_a_writer(3, one, two, || {
        bed.lockstep(two, &format!("group stop {NAME} --wait"))?;
        bed.nobody_serves(&[one, two])
    })?;
    bed.refused(two, &format!("group move {NAME}"), "LS6085")?;
    bed.remembers(one)?;
    one.power_cut(17)?;
    bed.nobody_serves(&[two])?;
    controlled.bring_back(one)?;
    pair.wait_in_sync()?;
    controlled.wait_ready()?;
    bed.nobody_serves(&[one, two])?;
    bed.lockstep(one, &format!("group start {NAME} --on node2 --wait"))?;
    bed.role(two, "active")
}

/// The standby is suspended, and the active node loses its power.
fn suspend_and_resume(bed: &Bed) -> anyhow::Result<()> {
    let controlled = &bed.controlled;
    let pair = &controlled.pair;
    let (one, two) = (pair.one(), pair.two());
    bed.lockstep(two, "node suspend node1")?;
    bed.refused(two, &format!("group move {NAME}"), "LS6084")?;
    controlled.wait_log(one, "LS6091", "Suspended")?;
    bed.under_a_writer(4, two, one, || {
        bed.remembers(two)?;
        two.power_cut(23)?;
        bed.nobody_serves(&[one])?;
        controlled.wait_log(one, "LS6017", "NodeResume")?;
        bed.lockstep(one, "node resume")?;
        bed.role(one, "active")
    })?;
    controlled.bring_back(two)?;
    pair.wait_in_sync()
}
