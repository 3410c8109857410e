//! PostgreSQL behind a floating address, set up by the lines of the README.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::controlled::guided::{FLOATING, Guided, MOUNT_POINT, ONLINE};
use crate::disk::{Disk, assert_identical};
use crate::guide::Guide;
use crate::machine::Machine;
use crate::progress::say;
use crate::scenario::{Context, Scenario};
use crate::wait::wait_until;

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "bare-to-postgres",
    about: "the lines of the README, typed as they are on three bare machines: PostgreSQL answers at its floating address",
    run: bare_to_postgres,
}];

/// A first copy of an empty disk, on emulated processors.
const MIRRORED_LIMIT: Duration = Duration::from_secs(180);
/// From the last line that is typed to an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
const COMMAND_LIMIT: Duration = Duration::from_secs(300);
/// Where the metadata on a backing device say how long they are, and in what unit (docs/on-disk-format.md).
const DATA_START: Range<usize> = 136..144;
const SECTOR_BYTES: usize = 512;

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
    assert_equal_copies(bed, one)
}

/// All that the README says.
fn set_up(context: &Context, guide: &Guide) -> anyhow::Result<Guided> {
    let bed = Guided::boot(context, guide)?;
    let (cluster, database) = guide.parts()?;
    bed.follow(cluster)?;
    let typed = Instant::now();
    let one = bed.controlled.pair.one();
    // Whoever types looks at this, as the README says.
    let healthy = wait_until(MIRRORED_LIMIT, "HEALTHY", || {
        let status = one.exec("lockstep volume status data", COMMAND_LIMIT)?;
        Ok(status.ok() && status.stdout.contains("HEALTHY"))
    });
    healthy.with_context(|| everything(&bed))?;
    let mirrored = typed.elapsed().as_secs_f32();
    bed.follow(database)?;
    let typed = Instant::now();
    let mut last = String::new();
    let answered = wait_until(ANSWER_LIMIT, "an answer of PostgreSQL", || {
        let answer = bed.ask("SELECT 'here'");
        last = format!("{answer:?}");
        Ok(answer.is_ok_and(|answer| answer == "here"))
    });
    answered.with_context(|| format!("{last}\n{}", everything(&bed)))?;
    say(format!(
        "mirrored and served {mirrored:.1} s after line {}; PostgreSQL answers {:.1} s after line {}",
        cluster.len(),
        typed.elapsed().as_secs_f32(),
        guide.steps.len()
    ));
    Ok(bed)
}

fn everything(bed: &Guided) -> String {
    let pair = &bed.controlled.pair;
    let logs = [pair.one(), pair.two()].map(|node| bed.database_log(node));
    format!("{}\n{}", bed.controlled.logs(), logs.concat())
}

/// Behind the metadata, which lie in front on the same device. Meanwhile the file system holds its writers back.
fn assert_equal_copies(bed: &Guided, active: &Machine) -> anyhow::Result<()> {
    let pair = &bed.controlled.pair;
    let disks = (pair.one().disk("data")?, pair.two().disk("data")?);
    let start = data_start(disks.0)?;
    ensure!(
        start > 0 && start == data_start(disks.1)?,
        "data at {start}"
    );
    let end = start + pair.volume_bytes()?;
    active.exec_ok(&format!("fsfreeze -f {MOUNT_POINT}"))?;
    let equal = assert_identical(disks.0, disks.1, start..end).context("the copies differ");
    active.exec_ok(&format!("fsfreeze -u {MOUNT_POINT}"))?;
    equal
}

fn data_start(disk: &Disk) -> anyhow::Result<u64> {
    let mut superblock = [0; SECTOR_BYTES];
    disk.read_at(0, &mut superblock)?;
    let sectors = superblock[DATA_START].try_into()?;
    Ok(u64::from_le_bytes(sectors) * SECTOR_BYTES as u64)
}
