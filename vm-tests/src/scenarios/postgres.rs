//! PostgreSQL behind a floating address, set up by the lines of the README, and a client on another machine.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::controlled::Clock;
use crate::controlled::guided::{FLOATING, GROUP, Guided, ONLINE, Steps};
use crate::controlled::rows::Ledger;
use crate::guide::Guide;
use crate::machine::Machine;
use crate::postgres::{Client, Told};
use crate::progress::say;
use crate::scenario::{Context, Scenario};
use crate::wait::wait_until;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "bare-to-postgres",
        about: "the lines of the README, typed as they are on three bare machines: PostgreSQL answers at its floating address",
        run: bare_to_postgres,
    },
    Scenario {
        name: "postgres-failover",
        about: "PostgreSQL behind a floating address, a client on a third machine: a power cut, then a move back; \
                0 acknowledged commits lost",
        run: |context| failovers(context, 1, Then::MoveBack),
    },
];

pub(super) const LONG: &[Scenario] = &[Scenario {
    name: "many-postgres-failovers",
    about: "30 power cuts of the server on which PostgreSQL runs: 0 acknowledged commits lost",
    run: |context| failovers(context, 30, Then::Nothing),
}];

/// What comes after the power cuts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Nothing,
    MoveBack,
}

/// From the cut to a commit. The product waits for 2 s of silence, and 2 s more until the dead node's services have
/// certainly ended; the rest is the file system's journal, three questions whether the address is free, and PostgreSQL's
/// replay of its log, which an emulated processor makes many times longer. So this only tells "it comes back" from "it does not";
/// what it took is printed.
const COMMIT_LIMIT: Duration = Duration::from_secs(60);
/// A planned move, for the client: a checkpoint besides.
const MOVE_LIMIT: Duration = Duration::from_secs(120);
const COMMITS_BEFORE: usize = 100;
const COMMITS_AFTER: usize = 100;
/// A first copy of an empty disk, on emulated processors.
const MIRRORED_LIMIT: Duration = Duration::from_secs(180);
/// From the last line that is typed to an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
const COMMAND_LIMIT: Duration = Duration::from_secs(300);

fn bare_to_postgres(context: &Context) -> anyhow::Result<()> {
    let guide = Guide::of_readme()?;
    let bed = set_up(context, &guide)?;
    stands(&bed, &guide).with_context(|| everything(&bed))
}

/// It answers through its address, has come up once, and all is well.
fn stands(bed: &Guided, guide: &Guide) -> anyhow::Result<()> {
    let controlled = &bed.controlled;
    let one = controlled.pair.one();
    let version = bed.ask("SHOW server_version")?;
    let client = bed.ask("SELECT inet_client_addr(), inet_server_addr()")?;
    ensure!(client.ends_with(FLOATING), "{client}");
    say(format!(
        "PostgreSQL {version} answers at {FLOATING} ({client}): {} lines typed ({} commands), {} lines of configuration",
        guide.steps.len(),
        guide.commands(),
        guide.configuration.lines().count()
    ));
    controlled.wait_ready()?;
    let verdict = one.exec("lockstep status", COMMAND_LIMIT)?;
    ensure!(
        verdict.ok() && verdict.stdout.contains("HEALTHY"),
        "{verdict:?}"
    );
    let online = controlled.count_log(one, ONLINE)?;
    ensure!(online == 1, "the group came up {online} times");
    bed.assert_equal_copies(one)
}

/// All that the README says.
fn set_up(context: &Context, guide: &Guide) -> anyhow::Result<Guided> {
    let bed = Guided::boot(context, guide)?;
    let (cluster, database) = guide.parts()?;
    bed.follow(cluster)?;
    // Nobody waits for the first copy, or for the volume to be served: the line does.
    let began = Instant::now();
    bed.follow(database)?;
    let prepared = began.elapsed().as_secs_f32();
    let typed = Instant::now();
    let mut last = String::new();
    let answered = wait_until(ANSWER_LIMIT, "an answer of PostgreSQL", || {
        let answer = bed.ask("SELECT 'here'");
        last = format!("{answer:?}");
        Ok(answer.is_ok_and(|answer| answer == "here"))
    });
    answered.with_context(|| format!("{last}\n{}", everything(&bed)))?;
    let answers = typed.elapsed().as_secs_f32();
    let one = bed.controlled.pair.one();
    let healthy = wait_until(MIRRORED_LIMIT, "HEALTHY", || {
        let status = one.exec("lockstep volume status data", COMMAND_LIMIT)?;
        Ok(status.ok() && status.stdout.contains("HEALTHY"))
    });
    healthy.with_context(|| everything(&bed))?;
    say(format!(
        "line {} took {prepared:.1} s; PostgreSQL answers {answers:.1} s later; mirrored {:.1} s after line {}",
        guide.steps.len(),
        began.elapsed().as_secs_f32(),
        cluster.len()
    ));
    Ok(bed)
}

fn everything(bed: &Guided) -> String {
    let pair = &bed.controlled.pair;
    let logs = [pair.one(), pair.two()].map(|node| bed.database_log(node));
    format!("{}\n{}", bed.controlled.logs(), logs.concat())
}

/// What one power cut came to, in seconds.
struct Figures {
    steps: Steps,
    commit: f64,
    gap: f64,
}

fn failovers(context: &Context, cuts: u64, then: Then) -> anyhow::Result<()> {
    let bed = set_up(context, &Guide::of_readme()?)?;
    let pair = &bed.controlled.pair;
    bed.make_table().with_context(|| everything(&bed))?;
    pair.wait_in_sync()?;
    bed.controlled.wait_ready()?;
    let mut ledger = Ledger::default();
    let mut active = pair.one();
    let mut figures = Vec::new();
    for cut in 1..=cuts {
        let told = power_cut(&bed, active, cut, cuts, &ledger)
            .with_context(|| format!("cut {cut} of {}\n{}", active.name(), everything(&bed)))?;
        ledger.add(&told.1)?;
        figures.push(told.0);
        active = pair.other(active);
        say_all_there(&bed, active, &ledger).with_context(|| everything(&bed))?;
        // An operator who saw that all is well again: without that a node begins twice an hour after a takeover.
        active.exec_ok(&format!("lockstep group clear {GROUP}"))?;
    }
    tell(&figures, &ledger);
    if then == Then::MoveBack {
        let told = move_over(&bed, active, &ledger).with_context(|| everything(&bed))?;
        ledger.add(&told)?;
        active = pair.other(active);
        say_all_there(&bed, active, &ledger).with_context(|| everything(&bed))?;
    }
    Ok(())
}

/// The node under the database loses its power while the client commits; it comes back, and is copied to.
fn power_cut(
    bed: &Guided,
    active: &Machine,
    cut: u64,
    cuts: u64,
    ledger: &Ledger,
) -> anyhow::Result<(Figures, Told)> {
    let controlled = &bed.controlled;
    let pair = &controlled.pair;
    let standby = pair.other(active);
    let mut client = Client::start(controlled.witness(), FLOATING, ledger.next)?;
    client.goes_on(COMMITS_BEFORE)?;
    bed.remember(active)?;
    let clocks = (Clock::of(controlled.witness())?, Clock::of(standby)?);
    client.goes_on(1)?;
    let gone = Instant::now();
    active.power_cut(cut * 104_729)?;
    let gone_there = clocks.0.there(gone)?;
    let first = client.first_after(gone_there, COMMIT_LIMIT)?;
    let commit = clocks.0.since(first.millis, gone);
    let steps = bed.steps(standby, &clocks.1, gone)?;
    client.goes_on(COMMITS_AFTER)?;
    let back = Instant::now();
    bed.boot_again(active)?;
    pair.wait_answer(active)?;
    pair.wait_in_sync()?;
    controlled.wait_ready()?;
    let back = back.elapsed().as_secs_f32();
    client.goes_on(COMMITS_AFTER)?;
    let told = client.end()?;
    let gap = told.longest_gap(gone_there).as_secs_f64();
    say(format!(
        "cut {cut}/{cuts} of {}: on {} the volume takes writes after {:.2} s, mounted {:.2}, first commit {commit:.2}, resources online {:.2}; \
         longest gap between two commits {gap:.2} s; {} acknowledged, {} connections; {} back and in sync {back:.1} s after its power",
        active.name(),
        standby.name(),
        steps.served,
        steps.mounted,
        steps.online,
        told.acks.len(),
        told.sessions.len(),
        active.name()
    ));
    Ok((Figures { steps, commit, gap }, told))
}

/// An operator moves the group to the other node while the client commits.
fn move_over(bed: &Guided, active: &Machine, ledger: &Ledger) -> anyhow::Result<Told> {
    let controlled = &bed.controlled;
    let pair = &controlled.pair;
    let target = pair.other(active);
    let mut client = Client::start(controlled.witness(), FLOATING, ledger.next)?;
    client.goes_on(COMMITS_BEFORE)?;
    let clock = Clock::of(controlled.witness())?;
    let began = Instant::now();
    let command = format!("lockstep group move {GROUP} --to {} --wait", target.name());
    let output = active.exec(&command, COMMAND_LIMIT)?;
    ensure!(output.ok(), "{command}: {output:?}");
    let took = began.elapsed().as_secs_f32();
    pair.wait_status(target, "/role", "active")?;
    pair.wait_status(active, "/role", "fenced")?;
    let began = clock.there(began)?;
    client.first_after(began, MOVE_LIMIT)?;
    client.goes_on(COMMITS_AFTER)?;
    pair.wait_in_sync()?;
    let told = client.end()?;
    let gap = told.longest_gap(began);
    say(format!(
        "{command}: {took:.1} s; longest gap between two commits {:.2} s; {} acknowledged",
        gap.as_secs_f32(),
        told.acks.len()
    ));
    ensure!(gap <= MOVE_LIMIT, "the client waited for {gap:?}");
    Ok(told)
}

fn say_all_there(bed: &Guided, active: &Machine, ledger: &Ledger) -> anyhow::Result<()> {
    let rows = bed.all_there(active, ledger)?;
    say(format!(
        "{} acknowledged commits, 0 lost, {rows} rows; the copies are equal",
        ledger.acked.len()
    ));
    Ok(())
}

fn tell(figures: &[Figures], ledger: &Ledger) {
    let told = |name: &str, of: fn(&Figures) -> f64| {
        let mut seconds: Vec<f64> = figures.iter().map(of).collect();
        seconds.sort_by(f64::total_cmp);
        let (median, longest) = (seconds[seconds.len() / 2], seconds[seconds.len() - 1]);
        say(format!(
            "{name}: median {median:.2} s, longest {longest:.2} s"
        ));
    };
    say(format!(
        "{} power cuts, {} acknowledged commits, 0 lost; from the cut to",
        figures.len(),
        ledger.acked.len()
    ));
    told("  the volume takes writes on the other server", |cut| {
        cut.steps.served
    });
    told("  the file system is mounted", |cut| cut.steps.mounted);
    told("  the first commit is acknowledged", |cut| cut.commit);
    told("  every resource is online", |cut| cut.steps.online);
    told("longest gap between two commits of the client", |cut| {
        cut.gap
    });
}
