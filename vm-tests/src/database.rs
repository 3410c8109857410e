//! A file system and a database on a mirrored volume, and a client that commits all the time.

use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::machine::{Machine, Running};
use crate::volume::{DEVICE, Pair};
use crate::wait::wait_until;

const LIMIT: Duration = Duration::from_secs(120);
/// Longer than any scenario.
const CLIENT_LIMIT: Duration = Duration::from_secs(900);
/// Writes one row per transaction and says so, until it sees an error or the file `/tmp/stop`.
pub(crate) const CLIENT: &str = r#"
set -e
sqlite3 /mnt/app.db 'PRAGMA journal_mode=WAL; CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, v TEXT)' >/dev/null
echo 'PRAGMA synchronous=FULL;' >/tmp/first.sql
(cat /tmp/first.sql; while [ ! -e /tmp/stop ]; do
  echo "INSERT INTO t(v) VALUES(hex(randomblob(100))); SELECT 'row ' || max(id) FROM t;"; done) |
  sqlite3 -bail /mnt/app.db
"#;
/// Rows that are there before the client begins, so that there is something to read.
const OLD_ROWS: u64 = 20_000;
/// Without a discard of the whole device, which would name all of it in the activity log.
const MAKE: &str = "mkfs.ext4 -q -E nodiscard";
/// What the kernel says when the volume (and not a disk under it) fails somebody.
pub(crate) const KERNEL_ERRORS: &str = "dmesg | grep -iE '(ublkb|ext4|jbd2).*error|error.*(ublkb|ext4|jbd2)|remounting filesystem read-only' || true";

/// How many rows a client was told are committed.
pub(crate) fn rows(client: &mut Running) -> anyhow::Result<u64> {
    Ok(last_row(&client.stdout_so_far()?))
}

fn last_row(text: &str) -> u64 {
    let last = text
        .lines()
        .filter_map(|line| line.strip_prefix("row "))
        .next_back();
    last.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// The database, its client, and where both are. The host hears of each commit over a serial line before the next
/// one begins.
pub struct Database<'a> {
    pair: &'a Pair,
    node: &'a Machine,
    client: Running,
}

impl<'a> Database<'a> {
    /// Makes all of it on the node that serves.
    ///
    /// # Errors
    /// If a command fails.
    pub fn begin(pair: &'a Pair, node: &'a Machine) -> anyhow::Result<Self> {
        node.exec_ok(&format!(
            "{MAKE} {DEVICE} && mkdir -p /mnt && mount {DEVICE} /mnt"
        ))?;
        node.exec_ok(&format!(
            "sqlite3 /mnt/app.db 'PRAGMA journal_mode=WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT); \
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {OLD_ROWS}) \
             INSERT INTO t(v) SELECT hex(randomblob(100)) FROM n' && sync"
        ))?;
        Self::start(pair, node)
    }

    fn start(pair: &'a Pair, node: &'a Machine) -> anyhow::Result<Self> {
        let client = node.spawn(CLIENT, CLIENT_LIMIT)?;
        let mut database = Self { pair, node, client };
        database.goes_on()?;
        Ok(database)
    }

    /// Where it is.
    #[must_use]
    pub fn node(&self) -> &'a Machine {
        self.node
    }

    /// Waits for commits that begin from now on, and says how long that took.
    ///
    /// # Errors
    /// If the client saw an error, or nothing is committed in time.
    pub fn goes_on(&mut self) -> anyhow::Result<Duration> {
        let pair = self.pair;
        let before = rows(&mut self.client).with_context(|| pair.logs())?;
        let what = format!("more than {before} commits");
        // The first one may have been on its way.
        let waited = wait_until(LIMIT, &what, || Ok(rows(&mut self.client)? >= before + 3));
        waited.with_context(|| pair.logs())
    }

    /// Reads all of it from the disks, beside the client.
    ///
    /// # Errors
    /// If something cannot be read or is not right.
    pub fn read_all(&self) -> anyhow::Result<()> {
        self.node
            .exec_ok("sync; echo 3 >/proc/sys/vm/drop_caches")?;
        intact(self.pair, self.node)
    }

    /// Both copies are equal in every byte. Meanwhile the file system holds its writers back.
    ///
    /// # Errors
    /// If they differ.
    pub fn assert_equal_copies(&self) -> anyhow::Result<()> {
        self.node.exec_ok("fsfreeze -f /mnt")?;
        let equal = self.pair.assert_equal_copies();
        self.node.exec_ok("fsfreeze -u /mnt")?;
        equal
    }

    /// Ends the client, which must have seen no error, and unmounts; how many commits it was told of.
    fn end(self) -> anyhow::Result<u64> {
        let (pair, node) = (self.pair, self.node);
        node.exec_ok("touch /tmp/stop")?;
        let output = self.client.wait()?;
        ensure!(
            output.ok() && output.stderr.is_empty(),
            "the database saw an error: {}\n{}",
            output.stderr,
            pair.logs()
        );
        let kernel = node.exec_ok(KERNEL_ERRORS)?;
        ensure!(kernel.is_empty(), "the file system saw an error: {kernel}");
        node.exec_ok("rm /tmp/stop; umount /mnt && sync")?;
        Ok(last_row(&output.stdout))
    }

    /// Ends everything here and goes on at the other node, in good order; every commit is there.
    ///
    /// # Errors
    /// If the client saw an error, or a commit is missing there.
    pub fn move_over(self) -> anyhow::Result<Self> {
        let (pair, from) = (self.pair, self.node);
        let committed = self.end()?;
        pair.lockstep(from, "deactivate")?;
        let node = pair.other(from);
        pair.lockstep(node, "activate")?;
        node.exec_ok(&format!("mkdir -p /mnt && mount {DEVICE} /mnt"))?;
        holds(pair, node, committed)?;
        Self::start(pair, node)
    }

    /// The last word: no error was seen, both copies are equal, and either of them has every commit.
    ///
    /// # Errors
    /// If that is not so.
    pub fn finish(self) -> anyhow::Result<u64> {
        let pair = self.pair;
        let moved = self.move_over()?;
        let committed = moved.end()?;
        pair.wait_in_sync()?;
        pair.assert_equal_copies()?;
        Ok(committed)
    }
}

fn intact(pair: &Pair, node: &Machine) -> anyhow::Result<()> {
    let said = node.exec_ok("sqlite3 /mnt/app.db 'PRAGMA integrity_check'");
    let said = said.with_context(|| pair.logs())?;
    ensure!(said == "ok", "integrity_check on {}: {said}", node.name());
    Ok(())
}

/// Every row that a client was told of is there, whole.
fn holds(pair: &Pair, node: &Machine, committed: u64) -> anyhow::Result<()> {
    intact(pair, node)?;
    let found = node.exec_ok(&format!(
        "sqlite3 /mnt/app.db 'SELECT count(*) FROM t WHERE id <= {committed} AND length(v) = 200'"
    ))?;
    ensure!(
        committed > OLD_ROWS && found == committed.to_string(),
        "{committed} rows were committed, {found} are on {}",
        node.name()
    );
    Ok(())
}
