//! Networks that lose what goes one way, and a witness that comes back as it was: exactly one side serves all the same.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;

use super::partition::{LIMIT, Story, nothing_is_lost, the_active_node};
use crate::controlled::{Controlled, INTERCONNECTS};
use crate::machine::Machine;
use crate::network::Net;
use crate::progress::say;
use crate::scenario::{Context, Scenario};
use crate::wait::wait_until;

pub(super) const LONG: &[Scenario] = &[
    Scenario {
        name: "one-way-loss",
        about: "what one node sends to the other is lost, on one interconnect or on all, either way round: one side goes on",
        run: one_way,
    },
    Scenario {
        name: "witness-from-backup",
        about: "the active node goes on alone, then the witness's state is put back from before: the other one is granted nothing",
        run: from_backup,
    },
];

/// Longer than a failover takes.
const NOTHING_FOR: Duration = Duration::from_secs(15);
const ALL: [Net; 3] = [Net::Inter, Net::Lan, Net::Mirror];

fn boot(context: &Context) -> anyhow::Result<Story> {
    Ok(Story {
        controlled: Controlled::boot(context)?,
    })
}

fn one_way(context: &Context) -> anyhow::Result<()> {
    let story = boot(context)?;
    let (one, two) = story.nodes();
    let writer = story.write(1, one)?;
    for deaf in [one, two] {
        one_interconnect(&story, deaf)?;
    }
    for deaf in [one, two] {
        everything(&story, deaf)?;
    }
    one.exec_ok("pkill -f 'vm-guest ledger-write[r]'")?;
    writer.wait()?;
    the_active_node(&story)?;
    nothing_is_lost(&story, &[1, 2, 3])
}

/// The deaf one hears nothing of the other one on one network after the other, and is heard itself.
fn one_interconnect(story: &Story, deaf: &Machine) -> anyhow::Result<()> {
    let before = story.words()?;
    let other = story.pair().other(deaf);
    for (path, net) in INTERCONNECTS.iter().enumerate() {
        deaf.ignore(other, *net)?;
        let code = format!("LS6012.*path={path}");
        story.controlled.wait_log(deaf, &code, "Down")?;
        let verdict = deaf.exec("lockstep status", LIMIT)?;
        ensure!(
            verdict.code == 1 && verdict.stdout.contains("is down"),
            "{verdict:?}"
        );
        story.goes_on(1)?;
        deaf.hear(*net)?;
        story.controlled.wait_log(deaf, &code, "Up")?;
    }
    story.pair().wait_in_sync()?;
    ensure!(story.words()? == before, "{}", story.controlled.logs());
    say(format!(
        "{} is deaf on one interconnect: told, and nothing else happened",
        deaf.name()
    ));
    Ok(())
}

/// The deaf one hears nothing of the other one on any network; both reach the witness.
fn everything(story: &Story, deaf: &Machine) -> anyhow::Result<()> {
    let other = story.pair().other(deaf);
    for net in ALL {
        deaf.ignore(other, net)?;
    }
    story.controlled.wait_log(deaf, "LS6011", "Dead")?;
    only_the_first_serves(story)?;
    for net in ALL {
        deaf.hear(net)?;
    }
    story.pair().wait_in_sync()?;
    story.controlled.wait_ready()?;
    say(format!(
        "{} is deaf on all networks: the active node went on, the other one stayed fenced",
        deaf.name()
    ));
    Ok(())
}

/// For a while: writes of the first run go on, and the second node does not serve.
fn only_the_first_serves(story: &Story) -> anyhow::Result<()> {
    let (one, two) = story.nodes();
    story.goes_on(1)?;
    let until = Instant::now() + NOTHING_FOR;
    while Instant::now() < until {
        let roles = [one, two].map(|node| story.pair().status(node));
        let [first, second] = roles;
        let (first, second) = (first?, second?);
        ensure!(
            first["role"] == "active" && second["role"] == "fenced",
            "{first:#}\n{second:#}\n{}",
            story.controlled.logs()
        );
        story.goes_on(1)?;
    }
    Ok(())
}

const STATE: &str = "/var/lib/lockstep/witness";
const BACKUP: &str = "/root/witness-backup";

fn from_backup(context: &Context) -> anyhow::Result<()> {
    let story = boot(context)?;
    let (one, two) = story.nodes();
    let writer = story.write(1, one)?;
    let witness = story.controlled.witness();
    witness.exec_ok(&format!("cp -a {STATE} {BACKUP}"))?;
    story.cut(&ALL)?;
    story.controlled.wait_log(two, "LS6011", "Dead")?;
    story.goes_on(1)?;
    // The first node counts alone by now, and the backup does not know of it.
    wait_until(LIMIT, "the first node counts alone", || {
        Ok(story.pair().status(one)?["view"]["insync"] == json!([one.name()]))
    })?;
    story.controlled.kill_witness()?;
    for node in [one, two] {
        story
            .controlled
            .wait_log(node, "LS6016\\|LS6023", "LS6016")?;
    }
    witness.exec_ok(&format!("rm -rf {STATE} && cp -a {BACKUP} {STATE}"))?;
    story.controlled.start_witness()?;
    for node in [one, two] {
        story
            .controlled
            .wait_log(node, "LS6016\\|LS6023", "LS6023")?;
    }
    only_the_first_serves(&story)?;
    say(
        "the witness is as it was before the first node went on alone: the second one was granted nothing",
    );
    story.heal(&ALL)?;
    story.controlled.wait_ready()?;
    one.exec_ok("pkill -f 'vm-guest ledger-write[r]'")?;
    writer.wait()?;
    the_active_node(&story)?;
    nothing_is_lost(&story, &[1, 2, 3])
}
