//! The rows of the database on a guided pair: what clients were told, and whether all of it is there.

use std::collections::BTreeSet;
use std::ops::Range;

use anyhow::{Context as _, ensure};

use super::guided::{Guided, MOUNT_POINT};
use crate::database::KERNEL_ERRORS;
use crate::disk::{Disk, assert_identical};
use crate::machine::Machine;
use crate::postgres::{COUNT, INDEX, ROWS, TABLE, Told, judge};
use crate::progress::say;

/// Where the metadata on a backing device say how long they are, and in what unit (docs/on-disk-format.md).
const DATA_START: Range<usize> = 136..144;
const SECTOR_BYTES: usize = 512;

/// What was acknowledged, and by which rows clients come to it.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// Rows whose commit was acknowledged.
    pub acked: BTreeSet<u64>,
    /// The first one that no client tried.
    pub next: u64,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            acked: BTreeSet::new(),
            next: 1,
        }
    }
}

impl Ledger {
    /// What a client was told, once it has ended.
    ///
    /// # Errors
    /// If it did not end.
    pub fn add(&mut self, told: &Told) -> anyhow::Result<()> {
        self.acked.extend(told.rows());
        self.next = told.next.context("the client did not end")?;
        Ok(())
    }
}

impl Guided {
    /// The client of these scenarios comes without a password, and finds its table. All that makes a commit durable is as it
    /// comes from Debian.
    ///
    /// # Errors
    /// If the database does not do as it is told.
    pub fn make_table(&self) -> anyhow::Result<()> {
        let client = self.controlled.witness();
        let active = self.controlled.pair.one();
        active.exec_ok(&format!(
            "sed -i '1i host all all 10.0.0.5/32 trust' {MOUNT_POINT}/data/pg_hba.conf"
        ))?;
        self.ask("SELECT pg_reload_conf()")?;
        self.ask(TABLE)?;
        let settings = "SELECT string_agg(name || '=' || setting, ' ' ORDER BY name) FROM pg_settings \
                    WHERE name IN ('fsync', 'synchronous_commit', 'full_page_writes')";
        let durable = self.ask(settings)?;
        ensure!(
            durable == "fsync=on full_page_writes=on synchronous_commit=on",
            "{durable}"
        );
        say(format!("a client on {} commits: {durable}", client.name()));
        Ok(())
    }

    /// Nothing that was acknowledged is missing, the database is whole, and both copies are equal in every byte.
    /// Returns how many rows there are.
    ///
    /// # Errors
    /// If something is missing or differs.
    pub fn all_there(&self, active: &Machine, ledger: &Ledger) -> anyhow::Result<String> {
        let (found, counted) = (self.ask(ROWS)?, self.ask(COUNT)?);
        judge(&ledger.acked, &found, &counted, ledger.next)?;
        self.ask(INDEX)?;
        let kernel = active.exec_ok(KERNEL_ERRORS)?;
        ensure!(kernel.is_empty(), "the file system saw an error: {kernel}");
        self.assert_equal_copies(active)?;
        Ok(counted)
    }

    /// Behind the metadata, which lie in front on the same device. Meanwhile the file system holds its writers back.
    ///
    /// # Errors
    /// If they are not.
    pub fn assert_equal_copies(&self, active: &Machine) -> anyhow::Result<()> {
        let pair = &self.controlled.pair;
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
}

fn data_start(disk: &Disk) -> anyhow::Result<u64> {
    let mut superblock = [0; SECTOR_BYTES];
    disk.read_at(0, &mut superblock)?;
    let sectors = superblock[DATA_START].try_into()?;
    Ok(u64::from_le_bytes(sectors) * SECTOR_BYTES as u64)
}
