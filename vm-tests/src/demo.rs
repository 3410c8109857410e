//! The demo: three bare machines become a cluster with PostgreSQL on it, a power cut in the middle of a client's commits, and nothing is lost.

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::controlled::Clock;
use crate::controlled::guided::{FLOATING, GROUP, Guided};
use crate::controlled::rows::Ledger;
use crate::guide::Guide;
use crate::machine::{Machine, Running};
use crate::network::Net;
use crate::postgres::{Client, Told};
use crate::progress::step;
use crate::scenario::Context;
use crate::wait::wait_until;

const COMMAND_LIMIT: Duration = Duration::from_secs(300);
/// What an emulated processor needs for the longest of what is waited for.
const LIMIT: Duration = Duration::from_secs(180);
const COMMITS: usize = 150;
/// What an operator would be told first after a power cut; the rest is `lockstep events`.
const TIMELINE: [&str; 8] = [
    "LS6011", "LS6015", "LS6017", "LS6018", "LS6010", "LS6041", "LS6040", "LS6130",
];

/// What happens after the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterTheEnd {
    /// The machines go away.
    Leave,
    /// They stay until the operator is done with them.
    Keep,
}

/// Tells the story.
///
/// # Errors
/// If it does not come out well.
pub fn run(after: AfterTheEnd) -> anyhow::Result<()> {
    let start = Instant::now();
    let guide = Guide::of_readme()?;
    let context = Context::new("demo")?;
    chapter("1. Three bare machines: two servers with an empty disk each, and a witness");
    let bed = Guided::boot_with(&context, &guide, after == AfterTheEnd::Keep)?;
    let mut story = Story {
        bed: &bed,
        ledger: Ledger::default(),
    };
    let told = story.tell(&guide);
    let figures = told.with_context(|| bed.controlled.logs())?;
    println!("\nVERDICT: every acknowledged commit is there; the copies are identical.");
    println!("{figures}");
    println!("  told in {:.0} s", start.elapsed().as_secs_f32());
    if after == AfterTheEnd::Keep {
        keep(&bed)?;
    }
    Ok(())
}

struct Story<'a> {
    bed: &'a Guided,
    ledger: Ledger,
}

/// What a client saw of an interruption.
struct Interruption {
    acked: usize,
    gap: Duration,
}

impl<'a> Story<'a> {
    fn tell(&mut self, guide: &Guide) -> anyhow::Result<String> {
        self.set_up(guide)?;
        let cut = self.power_cut()?;
        let moved = self.move_back()?;
        Ok(format!(
            "  typed                           {} lines, {} commands; {} lines of configuration\n  \
               commits acknowledged            {} by a client on the third machine, through {FLOATING}; all found\n  \
               power cut of the active server  {:.1} s without a commit; nobody typed anything ({} commits acknowledged around it)\n  \
               planned move back               {:.1} s without a commit ({} commits acknowledged around it)",
            guide.steps.len(),
            guide.commands(),
            guide.configuration.lines().count(),
            self.ledger.acked.len(),
            cut.gap.as_secs_f32(),
            cut.acked,
            moved.gap.as_secs_f32(),
            moved.acked,
        ))
    }

    fn one(&self) -> &'a Machine {
        self.bed.controlled.pair.one()
    }

    fn two(&self) -> &'a Machine {
        self.bed.controlled.pair.two()
    }

    /// Types what the README says.
    fn set_up(&self, guide: &Guide) -> anyhow::Result<()> {
        tell("node1: /etc/lockstep/cluster.toml");
        println!("{}", indent(&guide.configuration));
        let (cluster, database) = guide.parts()?;
        for line in cluster {
            tell(format!("{}# {}", line.on, line.command));
        }
        let typing = step("they join, and node1's disk and node2's become one volume");
        self.bed.follow(cluster)?;
        typing.done();
        for line in database {
            tell(format!("{}# {}", line.on, line.command));
        }
        let typing = step("a file system and a database on the volume, and the group starts");
        self.bed.follow(database)?;
        typing.done();
        let answering = step(format!("PostgreSQL answers at {FLOATING}"));
        wait_until(LIMIT, "an answer of PostgreSQL", || {
            Ok(self.bed.ask("SELECT 1").is_ok_and(|answer| answer == "1"))
        })?;
        answering.done();
        self.bed.make_table()?;
        let copying = step("the first copy, node1 to node2");
        self.wait_mirrored()?;
        copying.done();
        self.show_status(self.one())
    }

    fn client(&self) -> anyhow::Result<Client<'a>> {
        let witness = self.bed.controlled.witness();
        let mut client = Client::start(witness, FLOATING, self.ledger.next)?;
        client.goes_on(COMMITS)?;
        Ok(client)
    }

    fn power_cut(&mut self) -> anyhow::Result<Interruption> {
        chapter("2. A client commits rows; node1, under the database, loses its power");
        let client = self.client()?;
        let (told, cut) = self.cut_under(client)?;
        let acked = told.acks.len();
        self.judge(&told, self.two())?;
        Ok(Interruption {
            acked,
            gap: told.longest_gap(cut),
        })
    }

    /// What the client was told until node1 was back, and when the cut was, by its machine's clock.
    fn cut_under(&self, mut client: Client<'_>) -> anyhow::Result<(Told, i64)> {
        let (one, two) = (self.one(), self.two());
        tell(format!(
            "{} commits acknowledged so far",
            client.told()?.acks.len()
        ));
        self.bed.remember(one)?;
        let clocks = (Clock::of(self.bed.controlled.witness())?, Clock::of(two)?);
        let mut timeline = Timeline::of(two)?;
        client.goes_on(1)?;
        let cut = Instant::now();
        let lost = one.power_cut(20_26)?;
        tell(format!(
            "power cut: node1's disk lost {} sectors that were not flushed, and tore {}; seconds from then on, by node2's events:",
            lost.lost, lost.torn
        ));
        let gone = clocks.0.there(cut)?;
        wait_until(LIMIT, "the client to go on", || {
            timeline.show(&clocks.1, cut)?;
            Ok(client.told()?.first_after(gone).is_some())
        })?;
        let first = client.first_after(gone, LIMIT)?;
        tell(format!(
            "{:>7.2}  the client's next commit is acknowledged, by node2",
            clocks.0.since(first.millis, cut)
        ));
        drop(timeline);
        self.show_status(two)?;
        chapter("3. node1's power comes back; nobody types anything");
        let booting = step("node1 boots");
        self.bed.boot_again(one)?;
        booting.done();
        let copying = step("what may differ is copied, node2 to node1, while the client commits");
        self.wait_mirrored()?;
        copying.done();
        client.goes_on(COMMITS)?;
        Ok((client.end()?, gone))
    }

    fn move_back(&mut self) -> anyhow::Result<Interruption> {
        chapter("4. A planned move back to node1");
        let (one, two) = (self.one(), self.two());
        let mut client = self.client()?;
        let clock = Clock::of(self.bed.controlled.witness())?;
        let began = clock.there(Instant::now())?;
        let command = format!("lockstep group move {GROUP} --to {} --wait", one.name());
        tell(format!("node2# {command}"));
        let output = two.exec(&command, COMMAND_LIMIT)?;
        ensure!(output.ok(), "{command}: {output:?}");
        println!("{}", indent(&output.stdout));
        client.first_after(began, LIMIT)?;
        client.goes_on(COMMITS)?;
        let told = client.end()?;
        let (acked, gap) = (told.acks.len(), told.longest_gap(began));
        self.judge(&told, self.one())?;
        self.show_status(self.one())?;
        Ok(Interruption { acked, gap })
    }

    /// Everything that was acknowledged is there, on both disks.
    fn judge(&mut self, told: &Told, active: &Machine) -> anyhow::Result<()> {
        self.ledger.add(told)?;
        self.wait_mirrored()?;
        let rows = self.bed.all_there(active, &self.ledger)?;
        tell(format!(
            "{} commits were acknowledged, 0 are missing ({rows} rows); both disks are equal in every byte",
            self.ledger.acked.len()
        ));
        Ok(())
    }

    /// Both copies are equal, and both nodes ready for a failover.
    fn wait_mirrored(&self) -> anyhow::Result<()> {
        self.bed.controlled.pair.wait_in_sync()?;
        self.bed.controlled.wait_ready()
    }

    fn show_status(&self, node: &Machine) -> anyhow::Result<()> {
        let output = node.exec("lockstep status", COMMAND_LIMIT)?;
        tell(format!("{}# lockstep status", node.name()));
        println!("{}", indent(&output.stdout));
        Ok(())
    }
}

/// What `lockstep events --follow` says on a node.
struct Timeline {
    running: Running,
    read: usize,
}

impl Timeline {
    fn of(node: &Machine) -> anyhow::Result<Self> {
        let running = node.spawn(
            "exec lockstep events --follow --json --since 1m",
            COMMAND_LIMIT,
        )?;
        Ok(Self { running, read: 0 })
    }

    /// Prints what is new, with the seconds since the cut.
    fn show(&mut self, clock: &Clock, cut: Instant) -> anyhow::Result<()> {
        let text = self.running.stdout_from(self.read)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        for line in text[..whole].lines() {
            let event: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
            let word = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
            let code = word("code");
            let at = event["at_ms"].as_i64().context("no time")?;
            let since = clock.since(at, cut);
            if since >= 0.0 && word("node") == "node2" && TIMELINE.contains(&code.as_str()) {
                tell(format!(
                    "{since:>7.2}  {code}  {}{}",
                    word("text"),
                    named(&event)
                ));
            }
        }
        self.read += whole;
        Ok(())
    }
}

/// The figures of an event that say more than its text.
fn named(event: &Value) -> String {
    let named = |key: &&str| {
        event["fields"][*key]
            .as_str()
            .map(|value| format!("  {key}={value}"))
    };
    ["peer", "presence", "answer", "word", "decision", "resource"]
        .iter()
        .filter_map(named)
        .collect()
}

fn chapter(title: &str) {
    println!("\n{title}");
}

fn tell(line: impl AsRef<str>) {
    println!("  {}", line.as_ref());
    let _ = std::io::stdout().flush();
}

fn indent(text: &str) -> String {
    let lines = text.lines().map(|line| format!("      {line}"));
    lines.collect::<Vec<_>>().join("\n")
}

fn keep(bed: &Guided) -> anyhow::Result<()> {
    let pair = &bed.controlled.pair;
    println!("\nThe machines stay up until you press Enter here. A shell in one of them:");
    for machine in [pair.one(), pair.two(), bed.controlled.witness()] {
        let socket = pair.cluster.shell_socket_of(machine);
        println!(
            "  cargo vm attach {}    # {}, {}",
            socket.display(),
            machine.name(),
            machine.address(Net::Lan)
        );
    }
    println!(
        "Try `lockstep status`, `lockstep events`, `lockstep why`, `lockstep group move {GROUP} --wait`."
    );
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(())
}
