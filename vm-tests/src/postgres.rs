//! A client that commits rows in PostgreSQL all the time, and what it was told.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use crate::machine::{Machine, Running};
use crate::wait::wait_until;

/// Longer than anything that happens under one client.
const CLIENT_LIMIT: Duration = Duration::from_secs(1800);
const LIMIT: Duration = Duration::from_secs(120);
const STOP: &str = "/tmp/stop-postgres-client";
const PORT: u16 = 5432;
/// The table, and what each transaction does: a row says by itself whether it is whole.
pub const TABLE: &str = "CREATE TABLE acked (id bigint PRIMARY KEY, v text NOT NULL)";
const INSERT: &str = "INSERT INTO acked VALUES ($, repeat(md5($::text), 6))";
/// Every row, read from the table itself and not from its index; then the index is held against it.
pub const ROWS: &str = "SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off; \
                        SELECT id FROM acked WHERE v = repeat(md5(id::text), 6) ORDER BY id";
/// How many there are, whole or not.
pub const COUNT: &str = "SELECT count(*) FROM acked";
/// Fails if the index and the table do not agree.
pub const INDEX: &str =
    "CREATE EXTENSION IF NOT EXISTS amcheck; SELECT bt_index_check('acked_pkey', true)";
/// What a client may be told while its server goes away or comes: it is shut down, it crashed, it is starting.
const STATES_EXPECTED: [&str; 3] = ["57P01", "57P02", "57P03"];

/// A commit that was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The row.
    pub row: u64,
    /// By the clock of the client's machine.
    pub millis: i64,
    /// In which of the client's connections, from 1.
    pub session: usize,
}

/// What a client was told, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The commits that were acknowledged.
    pub acks: Vec<Ack>,
    /// When each connection was ready, by the clock of the client's machine.
    pub sessions: Vec<i64>,
    /// The first row that was not tried, once the client has ended.
    pub next: Option<u64>,
    /// In other words than acknowledgements, each with its time.
    pub troubles: Vec<String>,
}

impl Told {
    /// One more line of the client.
    fn line(&mut self, line: &str) -> anyhow::Result<()> {
        let mut words = line.split(' ');
        let mut word = || words.next().with_context(|| line.to_owned());
        match word()? {
            "up" => self.sessions.push(word()?.parse()?),
            "ack" => self.acks.push(Ack {
                row: word()?.parse()?,
                millis: word()?.parse()?,
                session: self.sessions.len(),
            }),
            "end" => self.next = Some(word()?.parse()?),
            "lost" | "wait" => {
                if let Some((_, state)) = line.split_once("SQLSTATE ") {
                    let expected = STATES_EXPECTED.iter().any(|known| state.starts_with(known));
                    ensure!(expected, "the client was told: {line}");
                }
                self.troubles.push(line.to_owned());
            }
            _ => bail!("the client says {line:?}"),
        }
        Ok(())
    }

    /// The rows that were acknowledged.
    #[must_use]
    pub fn rows(&self) -> BTreeSet<u64> {
        self.acks.iter().map(|ack| ack.row).collect()
    }

    /// The first commit that was acknowledged in a connection that was made after this moment of the client's machine.
    #[must_use]
    pub fn first_after(&self, millis: i64) -> Option<Ack> {
        let later = |ack: &&Ack| {
            let number = ack.session.checked_sub(1);
            number.is_some_and(|number| self.sessions[number] > millis)
        };
        self.acks.iter().find(later).copied()
    }

    /// The longest time between two acknowledgements that follow each other, the later one after this moment.
    #[must_use]
    pub fn longest_gap(&self, millis: i64) -> Duration {
        let later = self.acks.windows(2).filter(|two| two[1].millis > millis);
        let gaps = later.map(|two| two[1].millis - two[0].millis);
        let longest = gaps.max().unwrap_or_default();
        Duration::from_millis(u64::try_from(longest).unwrap_or_default())
    }
}

/// A client that runs on some machine.
pub struct Client<'a> {
    machine: &'a Machine,
    running: Running,
    /// Bytes of its output that were read.
    read: usize,
    told: Told,
}

impl<'a> Client<'a> {
    /// Starts it with this row; it connects again and again until it is ended.
    ///
    /// # Errors
    /// If the machine is off.
    pub fn start(machine: &'a Machine, server: &str, first: u64) -> anyhow::Result<Self> {
        machine.exec_ok(&format!("rm -f {STOP}"))?;
        let command = format!(
            "exec vm-guest postgres-client --server {server}:{PORT} --first {first} --sql '{INSERT}' --stop {STOP}"
        );
        Ok(Self {
            machine,
            running: machine.spawn(&command, CLIENT_LIMIT)?,
            read: 0,
            told: Told::default(),
        })
    }

    /// What it was told so far.
    ///
    /// # Errors
    /// If it ended, or was told something that a client must not be told.
    pub fn told(&mut self) -> anyhow::Result<&Told> {
        let text = self.running.stdout_from(self.read)?;
        // A line may be on its way.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        for line in text[..whole].lines() {
            self.told.line(line)?;
        }
        self.read += whole;
        Ok(&self.told)
    }

    /// Waits for so many more acknowledgements.
    ///
    /// # Errors
    /// If they do not come.
    pub fn goes_on(&mut self, more: usize) -> anyhow::Result<()> {
        let wanted = self.told()?.acks.len() + more;
        let what = format!("{more} more commits");
        let waited = wait_until(LIMIT, &what, || Ok(self.told()?.acks.len() >= wanted));
        waited.with_context(|| self.troubles()).map(drop)
    }

    /// Waits for a commit in a connection that was made after this moment of the client's machine.
    ///
    /// # Errors
    /// If none comes within `limit`.
    pub fn first_after(&mut self, millis: i64, limit: Duration) -> anyhow::Result<Ack> {
        let mut first = None;
        let waited = wait_until(limit, "a commit of the client", || {
            first = self.told()?.first_after(millis);
            Ok(first.is_some())
        });
        waited.with_context(|| self.troubles())?;
        first.context("no commit")
    }

    fn troubles(&self) -> String {
        let troubles = &self.told.troubles;
        troubles[troubles.len().saturating_sub(20)..].join("\n")
    }

    /// Ends it after its last transaction; all that it was told.
    ///
    /// # Errors
    /// If it does not end well, or was told something that a client must not be told.
    pub fn end(self) -> anyhow::Result<Told> {
        self.machine.exec_ok(&format!("touch {STOP}"))?;
        let output = self.running.wait()?;
        ensure!(output.ok() && output.stderr.is_empty(), "{output:?}");
        let mut told = Told::default();
        for line in output.stdout.lines() {
            told.line(line)?;
        }
        ensure!(told.next.is_some(), "the client did not say where it ended");
        Ok(told)
    }
}

/// Every acknowledged row is in the database, once, and the database has none that no client sent.
///
/// # Errors
/// If that is not so.
pub fn judge(acked: &BTreeSet<u64>, found: &str, counted: &str, next: u64) -> anyhow::Result<()> {
    let rows = found.lines().map(str::parse::<u64>);
    let rows = rows.collect::<Result<Vec<u64>, _>>()?;
    let twice = rows.windows(2).find(|two| two[0] == two[1]);
    ensure!(twice.is_none(), "twice in the database: {twice:?}");
    let there: BTreeSet<u64> = rows.iter().copied().collect();
    let lost: Vec<&u64> = acked.difference(&there).collect();
    let (many, some) = (lost.len(), &lost[..lost.len().min(20)]);
    ensure!(many == 0, "{many} acknowledged rows are lost: {some:?}");
    let foreign = there.range(next..).next();
    ensure!(foreign.is_none(), "nobody sent row {foreign:?}");
    // Those that are not whole are not among the rows.
    let counted: usize = counted.parse()?;
    ensure!(
        counted == rows.len(),
        "{counted} rows, {} whole",
        rows.len()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(lines: &str) -> anyhow::Result<Told> {
        let mut told = Told::default();
        for line in lines.lines() {
            told.line(line)?;
        }
        Ok(told)
    }

    #[test]
    fn the_first_commit_after_a_cut_is_one_of_a_later_connection() {
        let lines = "up 1000\nack 1 1010\nack 2 1030\nlost 3 3040 receive: timed out\nwait 3600 connect: timed out\n\
                     up 9000\nack 4 9200\nack 5 9210\nend 6\n";
        let told = told(lines).unwrap();
        // What was on its way at the cut is told after it.
        assert_eq!(told.first_after(1020).unwrap().row, 4);
        assert_eq!(told.first_after(9100), None);
        assert_eq!(told.longest_gap(1020), Duration::from_millis(8170));
        assert_eq!(told.longest_gap(9205), Duration::from_millis(10));
        assert_eq!((told.next, told.troubles.len()), (Some(6), 2));
    }

    #[test]
    fn an_error_of_the_database_is_a_failure_and_a_server_that_goes_away_is_none() {
        assert!(told("lost 7 5 SQLSTATE 57P01 terminating connection").is_ok());
        assert!(told("lost 7 5 SQLSTATE XX001 invalid page").is_err());
        assert!(told("wait 5 SQLSTATE 28000 no pg_hba.conf entry").is_err());
    }

    #[test]
    fn a_lost_a_torn_a_foreign_and_a_doubled_row_are_told() {
        let acked = BTreeSet::from([1, 2, 4]);
        let judged = |found: &str, counted: &str| {
            let judged = judge(&acked, found, counted, 6);
            judged.err().map(|error| error.to_string())
        };
        assert_eq!(judged("1\n2\n4", "3"), None);
        // A commit that was done and not acknowledged is no fault.
        assert_eq!(judged("1\n2\n3\n4", "4"), None);
        assert!(judged("1\n4", "2").unwrap().contains("[2]"));
        assert!(judged("1\n2\n4", "4").unwrap().contains("4 rows, 3 whole"));
        assert!(judged("1\n2\n4\n6", "4").unwrap().contains("row Some(6)"));
        assert!(judged("1\n2\n2\n4", "4").unwrap().contains("twice"));
    }
}
