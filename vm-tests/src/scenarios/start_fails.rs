//! A group whose resource does not start: it runs on the other node by itself, and where it starts on neither it waits.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::controlled::{Arbiter, Controlled};
use crate::machine::Machine;
use crate::scenario::{Context, Scenario};
use crate::volume::NAME;
use crate::wait::wait_until;

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "start-fails",
    about: "a start script fails on one node: the group runs on the other by itself; on both: it waits, and nothing flaps",
    run: start_fails,
}];

const COMMAND_LIMIT: Duration = Duration::from_secs(180);
/// Two tries of a start, a move, and two tries there.
const MOVED_WITHIN: Duration = Duration::from_secs(90);
/// Longer than a move takes, or gives up.
const NOTHING_FOR: Duration = Duration::from_secs(30);
const RESOURCES: &str = r#"
[[groups.data.resources]]
kind = "exec"
name = "service"
start = ["/bin/sh", "/root/start-service"]
stop = ["/bin/sh", "-c", "exit 0"]
"#;
const START: &str = "echo start >> /root/starts
test ! -e /root/broken
";

struct Bed {
    controlled: Controlled,
}

impl Bed {
    fn lockstep(&self, node: &Machine, words: &str) -> anyhow::Result<String> {
        let output = node.exec(&format!("lockstep {words}"), COMMAND_LIMIT)?;
        ensure!(
            output.ok(),
            "{}: lockstep {words}: {output:?}\n{}",
            node.name(),
            self.controlled.logs()
        );
        Ok(output.stdout)
    }

    /// How often the script was called there.
    fn starts(&self, node: &Machine) -> anyhow::Result<usize> {
        let count = node.exec_ok("cat /root/starts 2>/dev/null | wc -l")?;
        count.trim().parse().context("a number of starts")
    }

    fn both_starts(&self) -> anyhow::Result<[usize; 2]> {
        let pair = &self.controlled.pair;
        Ok([self.starts(pair.one())?, self.starts(pair.two())?])
    }

    /// In what the node tells of itself.
    fn shows(&self, node: &Machine, words: &[&str]) -> anyhow::Result<()> {
        let what = format!("{} shows {words:?}", node.name());
        let waited = wait_until(MOVED_WITHIN, &what, || {
            let text = node.exec("lockstep status --json", COMMAND_LIMIT)?.stdout;
            let text: String = text.split_whitespace().collect();
            Ok(words.iter().all(|word| text.contains(word)))
        });
        waited.with_context(|| self.controlled.logs()).map(drop)
    }

    fn tells(&self, node: &Machine, code: &str, wanted: &str) -> anyhow::Result<()> {
        let controlled = &self.controlled;
        let told = controlled.wait_log_within(node, code, wanted, MOVED_WITHIN);
        told.map(drop)
    }

    fn serves(&self, node: &Machine) -> anyhow::Result<()> {
        let waited = self.controlled.pair.wait_status(node, "/role", "active");
        waited.with_context(|| self.controlled.logs()).map(drop)
    }
}

fn start_fails(context: &Context) -> anyhow::Result<()> {
    let files = [("/root/start-service", START)];
    let bed = Bed {
        controlled: Controlled::boot_with(context, Arbiter::Witness, RESOURCES, &files)?,
    };
    let one = bed.controlled.pair.one();
    bed.controlled.wait_log(one, "LS6040", "online")?;
    on_one_node(&bed)?;
    on_both_nodes(&bed)?;
    bed.controlled.pair.assert_equal_copies()
}

/// It is moved to where it does not start, and comes back by itself.
fn on_one_node(bed: &Bed) -> anyhow::Result<()> {
    let pair = &bed.controlled.pair;
    let (one, two) = (pair.one(), pair.two());
    two.exec_ok("touch /root/broken")?;
    let [before, _] = bed.both_starts()?;
    bed.lockstep(one, &format!("group move {NAME} --to node2"))?;
    bed.tells(two, "LS6163", "by itself")?;
    bed.serves(one)?;
    bed.shows(one, &["\"failed_on\":[\"node2\"]", "\"state\":\"online\""])?;
    let starts = bed.both_starts()?;
    ensure!(
        starts == [before + 1, 2],
        "started {starts:?} times, {before} on the first node before\n{}",
        bed.controlled.logs()
    );
    two.exec_ok("rm /root/broken")?;
    bed.lockstep(one, &format!("group clear {NAME}"))?;
    bed.lockstep(one, &format!("group stop {NAME} --wait"))?;
    Ok(())
}

/// It starts nowhere: one move, two tries on each node, then nothing until it is mended and cleared.
fn on_both_nodes(bed: &Bed) -> anyhow::Result<()> {
    let pair = &bed.controlled.pair;
    let (one, two) = (pair.one(), pair.two());
    for node in [one, two] {
        node.exec_ok("touch /root/broken; rm -f /root/starts")?;
    }
    bed.lockstep(one, &format!("group start {NAME} --on node1"))?;
    bed.tells(two, "LS6164", "failed on the other node as well")?;
    bed.serves(two)?;
    bed.shows(
        two,
        &[
            "\"failed_on\":[\"node1\",\"node2\"]",
            "\"state\":\"start-failed\"",
        ],
    )?;
    let until = Instant::now() + NOTHING_FOR;
    while Instant::now() < until {
        let starts = bed.both_starts()?;
        ensure!(
            starts == [2, 2],
            "started {starts:?} times\n{}",
            bed.controlled.logs()
        );
        std::thread::sleep(Duration::from_secs(1));
    }
    for node in [one, two] {
        node.exec_ok("rm /root/broken")?;
    }
    bed.lockstep(one, &format!("group clear {NAME}"))?;
    bed.shows(two, &["\"state\":\"online\""])?;
    let starts = bed.both_starts()?;
    ensure!(starts == [2, 3], "started {starts:?} times");
    bed.serves(two)
}
