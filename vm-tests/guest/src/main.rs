//! The one program of the test machines: init, command agent, ledger writer, client of PostgreSQL.
//!
//! It is linked statically, because it is `/init` before there is a root file system.

mod agent;
mod init;
mod ledger_writer;
mod postgres_client;
mod sys;

use std::path::Path;

use anyhow::bail;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Runs inside Lockstep's test machines")]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Second half of the start, in the real root.
    Start,
    /// Answer the harness's commands.
    Agent,
    /// Write sectors that say who they are and report each promise.
    LedgerWriter(ledger_writer::Options),
    /// Commit one row after the other, and report each promise.
    PostgresClient(postgres_client::Options),
    /// Sync and power off.
    Poweroff,
    /// Sync and reboot.
    Reboot,
}

fn main() -> anyhow::Result<()> {
    let name = std::env::args().next().unwrap_or_default();
    match Path::new(&name).file_name().and_then(|name| name.to_str()) {
        Some("init") => return init::initramfs(),
        Some("reboot") => return sys::reboot(libc::RB_AUTOBOOT),
        Some("poweroff") => return sys::reboot(libc::RB_POWER_OFF),
        Some(_) => {}
        None => bail!("no program name"),
    }
    match Cli::parse().role {
        Role::Start => init::real_root(),
        Role::Agent => agent::run(),
        Role::LedgerWriter(options) => ledger_writer::run(&options),
        Role::PostgresClient(options) => postgres_client::run(&options),
        Role::Poweroff => sys::reboot(libc::RB_POWER_OFF),
        Role::Reboot => sys::reboot(libc::RB_AUTOBOOT),
    }
}
