//! One recorded run, cut at hundreds of moments afterwards: each crash is opened by two daemons on this machine.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use vm_guest::record::Kind;

use crate::agent::lock;
use crate::crash::{Alone, Cut, Recording, Victim, assert_equal_files};
use crate::daemons::{Daemons, Part, open};
use crate::machine::Machine;
use crate::network::{self, Net};
use crate::progress::{self, say};
use crate::scenario::{Context, Scenario};
use crate::volatile::PowerCut;
use crate::volume::{DEVICE, KEY_FILE, Pair};
use crate::write_log::Replay;
use crate::writer::{Fsync, Writer};

/// For `cargo verify --all`.
pub(super) const LONG: &[Scenario] = &[
    Scenario {
        name: "crash-20-images",
        about: "20 crashes made from a recorded run: the beginning of the long one",
        run: |context| crash_images(context, 20),
    },
    Scenario {
        name: "crash-images",
        about: "300 crashes made from a recorded run, opened by daemons on this machine: the copies come together, nothing promised is lost",
        run: |context| crash_images(context, IMAGES),
    },
];

const IMAGES: u32 = 300;
const VOLUME_BYTES: u64 = 24 << 20;
/// Ledger blocks of 4 KiB: few, so that they are written again and again.
const BLOCKS: u64 = 1024;
const ACKS: usize = 300;
const COME_TOGETHER_LIMIT: Duration = Duration::from_secs(60);
/// Pairs of daemons at a time.
const WORKERS: usize = 2;
/// Failures that are told in full, with their images kept.
const FAILURES_MAX: usize = 5;

fn crash_images(context: &Context, count: u32) -> anyhow::Result<()> {
    let seed = context.seed();
    say(format!("seed {seed}"));
    let product = context.product()?;
    let program = product
        .files
        .iter()
        .find(|file| file.ends_with("ublk-mirror"));
    let recording = record(context)?;
    let bench = Bench {
        recording: &recording,
        program: program.context("no ublk-mirror was built")?.clone(),
        evidence: context.artifacts().clone(),
        results: Mutex::default(),
    };
    let cuts = recording.plan(count, seed);
    bench.prove_the_judge(&cuts)?;
    let step = progress::step(format!("{count} crashes"));
    thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let (bench, cuts, step) = (&bench, &cuts, &step);
                scope.spawn(move || bench.work(worker, cuts, step))
            })
            .collect();
        workers.into_iter().try_for_each(|worker| {
            let ended = worker.join();
            ended.unwrap_or_else(|_| bail!("a worker panicked"))
        })
    })?;
    step.done();
    bench.tell(count, seed)
}

/// Runs a pair through what makes it write metadata, with nothing going wrong but the link and a daemon.
fn record(context: &Context) -> anyhow::Result<Recording> {
    let pair = Pair::boot_sized(context, VOLUME_BYTES)?;
    let (one, two) = (pair.one(), pair.two());
    // So that from the first cut on something is promised.
    write(&pair, one, 1, Fsync::Every(8), |_| Ok(()))?;
    let order = pair.cluster.order();
    let nodes = [one, two];
    for node in nodes {
        for part in Part::ALL {
            node.disk(part.name())?.record(order.clone())?;
        }
    }
    let begin = order.next();
    let step = progress::step("recording a run");
    let mut alone = Vec::new();
    write(&pair, one, 2, Fsync::Every(16), |run| link_flap(&pair, run))?;
    write(&pair, one, 3, Fsync::Every(4), |run| {
        two.exec_ok("pkill -9 -f '[u]blk-mirror run'")?;
        pair.wait_status(one, "/link/state", "down")?;
        pair.start(two)?;
        more(&pair, run)
    })?;
    write(&pair, one, 4, Fsync::Every(16), |run| {
        let orders = word_and_return(&pair, run)?;
        alone.push(Alone { orders, node: 0 });
        more(&pair, run)
    })?;
    write(&pair, one, 5, Fsync::Never, |_| Ok(()))?;
    pair.lockstep(one, "deactivate")?;
    pair.lockstep(two, "activate")?;
    write(&pair, two, 6, Fsync::Every(8), |_| Ok(()))?;
    let disk = |node: &Machine, part: Part| node.disk(part.name())?.recorded();
    let both = |node: &Machine| anyhow::Ok([disk(node, Part::Data)?, disk(node, Part::Metadata)?]);
    let recording = Recording {
        disks: [both(one)?, both(two)?],
        begin,
        ledger: pair.cluster.ledger(&[1, 2, 3, 4, 5, 6]),
        boots: [one.boot_id()?, two.boot_id()?],
        key: one.get(KEY_FILE, 0, 4096)?,
        alone,
    };
    let entries: usize = recording
        .disks
        .iter()
        .flatten()
        .map(|log| log.entries.len())
        .sum();
    step.done_with(&format!(
        "{entries} writes and flushes of 4 disks, {} acknowledged writes, {} acknowledged flushes",
        recording.ledger.count(Kind::Ack),
        recording.ledger.count(Kind::FlushAck)
    ));
    Ok(recording)
}

/// Writes until `ACKS` are acknowledged, does something under the writer, and ends it.
fn write(
    pair: &Pair,
    node: &Machine,
    run: u32,
    fsync: Fsync,
    meanwhile: impl FnOnce(u32) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let writer = Writer {
        fsync,
        seconds: 600,
        ..Writer::new(run, DEVICE, BLOCKS)
    };
    let running = writer.start(node)?;
    pair.wait_acks(run, ACKS)?;
    meanwhile(run)?;
    running.kill()?;
    running.wait().map(drop)
}

fn more(pair: &Pair, run: u32) -> anyhow::Result<()> {
    let before = pair.cluster.ledger(&[run]).count(Kind::Ack);
    pair.wait_acks(run, before + ACKS)
}

fn link_flap(pair: &Pair, run: u32) -> anyhow::Result<()> {
    let one = pair.one();
    one.link_down(Net::Mirror)?;
    pair.wait_status(one, "/frozen", "peer-lost")?;
    one.link_up(Net::Mirror)?;
    pair.wait_status(one, "/link/state", "up")?;
    more(pair, run)
}

/// The operator lets the active node go on alone; the other one comes back and is copied to. When only one
/// copy counted.
fn word_and_return(pair: &Pair, run: u32) -> anyhow::Result<RangeInclusive<u64>> {
    let order = pair.cluster.order();
    let one = pair.one();
    one.link_down(Net::Mirror)?;
    pair.wait_status(one, "/frozen", "peer-lost")?;
    let from = order.next();
    pair.takeover(one)?;
    more(pair, run)?;
    one.link_up(Net::Mirror)?;
    pair.wait_in_sync()?;
    Ok(from..=order.next())
}

/// How a crash came out.
struct Settled {
    cut: Cut,
    cause: String,
    left: PowerCut,
    required: u64,
    seconds: f32,
}

#[derive(Default)]
struct Results {
    settled: Vec<Settled>,
    failures: Vec<String>,
    failed: u32,
}

struct Bench<'a> {
    recording: &'a Recording,
    program: PathBuf,
    evidence: PathBuf,
    results: Mutex<Results>,
}

impl Bench<'_> {
    fn daemons(&self, worker: usize) -> anyhow::Result<Daemons> {
        // A number that no cluster has: what a killed run leaves is removed as theirs is.
        let directory = network::run_directory(usize::MAX - 1 - worker);
        Daemons::new(&self.program, &self.recording.key, directory)
    }

    /// Every `WORKERS`th cut.
    fn work(&self, worker: usize, cuts: &[Cut], step: &progress::Step) -> anyhow::Result<()> {
        let mut daemons = self.daemons(worker)?;
        let mut replays = replays(self.recording);
        for cut in cuts.iter().skip(worker).step_by(WORKERS) {
            let start = Instant::now();
            let left = write_images(&mut replays, cut, &daemons)?;
            let result = open_crash(self.recording, cut, &mut daemons);
            let mut results = lock(&self.results);
            match result {
                Ok((cause, required)) => results.settled.push(Settled {
                    cut: *cut,
                    cause,
                    left,
                    required,
                    seconds: start.elapsed().as_secs_f32(),
                }),
                Err(error) => {
                    results.failed += 1;
                    if results.failures.len() < FAILURES_MAX {
                        let kept = self.keep(cut, &replays, &daemons);
                        results.failures.push(format!(
                            "{cut:?}: {error:#}\n  images: {kept}\n{}",
                            daemons.logs()
                        ));
                    }
                }
            }
            step.update(&format!("{} done", results.settled.len()));
            drop(results);
            daemons.clear();
        }
        Ok(())
    }

    /// The images of a crash that came out badly, as the daemons found them.
    fn keep(&self, cut: &Cut, replays: &Replays<'_>, daemons: &Daemons) -> String {
        let keep = || -> anyhow::Result<PathBuf> {
            let directory = self.evidence.join(format!("crash-{}", cut.number));
            fs::create_dir_all(&directory)?;
            for (node, disks) in replays.iter().enumerate() {
                for (part, replay) in Part::ALL.into_iter().zip(disks) {
                    let path = directory.join(format!("node{}-{}", node + 1, part.name()));
                    let file = File::create(path)?;
                    replay.image(cut.order, cut.power(node, part), &file)?;
                }
                let log = directory.join(format!("node{}.log", node + 1));
                fs::write(log, daemons.log(node))?;
            }
            Ok(directory)
        };
        keep().map_or_else(|error| error.to_string(), |path| path.display().to_string())
    }

    /// The same procedure must fail where both disks have lost a write that they had promised.
    fn prove_the_judge(&self, cuts: &[Cut]) -> anyhow::Result<()> {
        let last_both = cuts.iter().rev().find(|cut| cut.victim == Victim::Both);
        let cut = last_both.context("no cut of both")?;
        let block = self.flushed_block(cut.order)?;
        let bytes = block * 4096..(block + 1) * 4096;
        let mut spoilt = Recording {
            ledger: self.recording.ledger.clone(),
            boots: self.recording.boots.clone(),
            key: self.recording.key.clone(),
            alone: self.recording.alone.clone(),
            disks: self.recording.disks.clone(),
            begin: self.recording.begin,
        };
        for node in &mut spoilt.disks {
            node[0] = node[0].without(&bytes);
        }
        let mut daemons = self.daemons(WORKERS)?;
        write_images(&mut replays(&spoilt), cut, &daemons)?;
        match open_crash(&spoilt, cut, &mut daemons) {
            Ok(_) => bail!("block {block} was taken from both disks, and nobody missed it"),
            Err(error) => {
                let said = format!("{error:#}");
                ensure!(
                    said.contains(&format!("block {block}:")),
                    "another failure than the missing block {block}: {said}"
                );
                say(format!(
                    "the judge misses block {block}, which was taken away on purpose"
                ));
                Ok(())
            }
        }
    }

    /// A block that was written in the recorded time and flushed before a moment.
    fn flushed_block(&self, before: u64) -> anyhow::Result<u64> {
        let entries = &self.recording.ledger.entries;
        let known = |kind: Kind, before: u64| {
            let wanted = move |entry: &&crate::ledger::Entry| {
                entry.record.kind == kind && entry.order < before
            };
            entries.iter().rev().find(wanted)
        };
        let flushed = known(Kind::FlushAck, before).context("no flush before the cut")?;
        let of_it = |entry: &&crate::ledger::Entry| {
            entry.record.kind == Kind::FlushIssue
                && (entry.record.run, entry.record.sequence)
                    == (flushed.record.run, flushed.record.sequence)
        };
        let issued = entries.iter().find(of_it).context("no flush")?;
        let acked = known(Kind::Ack, issued.order).context("no write before the flush")?;
        Ok(acked.record.block)
    }

    fn tell(&self, count: u32, seed: u64) -> anyhow::Result<()> {
        let results = lock(&self.results);
        tell_table(&results.settled);
        if results.failed > 0 {
            bail!(
                "{} of {count} crashes came out badly (seed {seed}):\n{}",
                results.failed,
                results.failures.join("\n")
            );
        }
        let settled = results.settled.len();
        ensure!(
            settled == usize::try_from(count)?,
            "only {settled} of {count} crashes were opened"
        );
        Ok(())
    }
}

type Replays<'a> = [[Replay<'a>; 2]; 2];

fn replays(recording: &Recording) -> Replays<'_> {
    recording
        .disks
        .each_ref()
        .map(|node| node.each_ref().map(Replay::new))
}

fn write_images(
    replays: &mut Replays<'_>,
    cut: &Cut,
    daemons: &Daemons,
) -> anyhow::Result<PowerCut> {
    let mut left = PowerCut::default();
    for (node, disks) in replays.iter_mut().enumerate() {
        for (part, replay) in Part::ALL.into_iter().zip(disks) {
            replay.advance(cut.order);
            let file = open(&daemons.disk(node, part))?;
            left.add(replay.image(cut.order, cut.power(node, part), &file)?);
        }
    }
    Ok(left)
}

/// Lets the daemons come together and judges both copies; why they were equal or what was copied, and how
/// many blocks had a promise.
fn open_crash(
    recording: &Recording,
    cut: &Cut,
    daemons: &mut Daemons,
) -> anyhow::Result<(String, u64)> {
    daemons.check().context("check refuses the metadata")?;
    daemons.start(&[cut.boot(recording, 0), cut.boot(recording, 1)])?;
    daemons.wait_in_sync(COME_TOGETHER_LIMIT)?;
    let bytes = daemons.volume_bytes()?;
    daemons.stop()?;
    let (one, two) = (
        open(&daemons.disk(0, Part::Data))?,
        open(&daemons.disk(1, Part::Data))?,
    );
    assert_equal_files(&one, &two, bytes)?;
    let verdict = recording.judge(cut, &one)?;
    verdict
        .require_ok()
        .with_context(|| format!("{:?} required", recording.durability(cut)))?;
    Ok((daemons.cause(), verdict.required))
}

fn tell_table(settled: &[Settled]) {
    let mut rows: BTreeMap<(&str, Victim), Vec<&Settled>> = BTreeMap::new();
    let mut moments: BTreeMap<_, u32> = BTreeMap::new();
    for crash in settled {
        rows.entry((&crash.cause, crash.cut.victim))
            .or_default()
            .push(crash);
        *moments.entry(crash.cut.moment).or_default() += 1;
    }
    say("crashes  power lost by  settled by");
    for ((cause, victim), crashes) in rows {
        let who = match victim {
            Victim::Both => "both".to_owned(),
            Victim::One(node) => format!("node{}", node + 1),
        };
        say(format!("{:>7}  {who:13}  {cause}", crashes.len()));
    }
    let moments: Vec<String> = moments
        .iter()
        .map(|(moment, count)| format!("{count} {moment:?}"))
        .collect();
    say(format!("cut next to: {}", moments.join(", ")));
    let mut left = PowerCut::default();
    for crash in settled {
        left.add(crash.left);
    }
    let seconds: Vec<f32> = settled.iter().map(|crash| crash.seconds).collect();
    let count = f32::from(u16::try_from(seconds.len().max(1)).unwrap_or(u16::MAX));
    say(format!(
        "unflushed writes: {} kept, {} lost, {} torn; {} blocks with a promise were read; {:.2} s a crash, longest {:.2} s",
        left.kept,
        left.lost,
        left.torn,
        settled.iter().map(|crash| crash.required).sum::<u64>(),
        seconds.iter().sum::<f32>() / count,
        seconds.iter().copied().fold(0.0, f32::max)
    ));
}
