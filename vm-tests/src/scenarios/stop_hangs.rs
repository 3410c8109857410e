//! A stop script that hangs: it is killed, its volume is fenced, and nothing starts elsewhere before an operator says so.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::controlled::{Arbiter, Controlled};
use crate::machine::Machine;
use crate::progress::say;
use crate::scenario::{Context, Scenario};
use crate::volume::NAME;
use crate::wait::wait_until;

pub(super) const LONG: &[Scenario] = &[Scenario {
    name: "stop-hangs",
    about: "a stop script hangs in a move: it is killed, the volume is fenced, nothing starts on the other node until it is cleared",
    run: stop_hangs,
}];

const COMMAND_LIMIT: Duration = Duration::from_secs(180);
const SHOWN_WITHIN: Duration = Duration::from_secs(90);
/// Longer than a move takes.
const NOTHING_FOR: Duration = Duration::from_secs(20);
const RESOURCES: &str = r#"
[[groups.data.resources]]
kind = "exec"
name = "service"
start = ["/bin/sh", "/root/start-service"]
stop = ["/bin/sh", "/root/stop-service"]
stop_timeout_ms = 5000
"#;
const START: &str = "echo start >> /root/starts
";
/// Deaf to TERM, like what it began.
const STOP: &str = "trap '' TERM
if [ -e /root/hangs ]; then sleep 54321; fi
exit 0
";

struct Bed {
    controlled: Controlled,
}

impl Bed {
    fn starts(&self, node: &Machine) -> anyhow::Result<usize> {
        let count = node.exec_ok("cat /root/starts 2>/dev/null | wc -l")?;
        count.trim().parse().context("a number of starts")
    }

    /// In what the node tells of itself.
    fn shows(&self, node: &Machine, word: &str) -> anyhow::Result<()> {
        let what = format!("{} shows {word}", node.name());
        let waited = wait_until(SHOWN_WITHIN, &what, || {
            let text = node.exec("lockstep status --json", COMMAND_LIMIT)?.stdout;
            let text: String = text.split_whitespace().collect();
            Ok(text.contains(word))
        });
        waited.with_context(|| self.controlled.logs()).map(drop)
    }

    fn role(&self, node: &Machine, role: &str) -> anyhow::Result<()> {
        let waited = self.controlled.pair.wait_status(node, "/role", role);
        waited.with_context(|| self.controlled.logs()).map(drop)
    }
}

fn stop_hangs(context: &Context) -> anyhow::Result<()> {
    let files = [("/root/start-service", START), ("/root/stop-service", STOP)];
    let bed = Bed {
        controlled: Controlled::boot_with(context, Arbiter::Witness, RESOURCES, &files)?,
    };
    let pair = &bed.controlled.pair;
    let (one, two) = (pair.one(), pair.two());
    bed.controlled.wait_log(one, "LS6040", "online")?;
    one.exec_ok("touch /root/hangs")?;
    let moved = one.exec(
        &format!("lockstep group move {NAME} --to node2"),
        COMMAND_LIMIT,
    )?;
    ensure!(!moved.ok(), "the move went well: {moved:?}");
    say(format!("the move says: {}", moved.stderr.trim()));
    bed.shows(one, "\"state\":\"stop-failed\"")?;
    bed.role(one, "fenced")?;
    let left = one.exec("pgrep -f 'sleep 5432[1]'", COMMAND_LIMIT)?;
    ensure!(!left.ok(), "the script runs on: {left:?}");
    let until = Instant::now() + NOTHING_FOR;
    while Instant::now() < until {
        let starts = bed.starts(two)?;
        ensure!(
            starts == 0,
            "it was started there {starts} times\n{}",
            bed.controlled.logs()
        );
        std::thread::sleep(Duration::from_secs(1));
    }
    say("the script was killed, the volume is fenced, and nothing started on the other node");

    one.exec_ok("rm /root/hangs")?;
    let cleared = one.exec(&format!("lockstep group clear {NAME}"), COMMAND_LIMIT)?;
    ensure!(cleared.ok(), "{cleared:?}\n{}", bed.controlled.logs());
    let before = bed.starts(one)?;
    let begun = wait_until(SHOWN_WITHIN, "one more start", || {
        Ok(bed.starts(one)? + bed.starts(two)? > before)
    });
    begun.with_context(|| bed.controlled.logs())?;
    let (serving, other) = if bed.starts(two)? > 0 {
        (two, one)
    } else {
        (one, two)
    };
    bed.shows(serving, "\"state\":\"online\"")?;
    bed.role(serving, "active")?;
    bed.role(other, "fenced")?;
    ensure!(
        bed.starts(one)? + bed.starts(two)? == before + 1,
        "it was started more than once"
    );
    say(format!("cleared: it runs on {}", serving.name()));
    pair.assert_equal_copies()
}
