//! pgbench on ext4 on each system: the same database, copied to each.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use crate::bench::bed::Bed;
use crate::bench::sample::{self, Cost};
use crate::bench::systems::{Ready, System};
use crate::machine::{Machine, Output};

const MAKE_LIMIT: Duration = Duration::from_secs(600);
const BIN: &str = "/usr/lib/postgresql/15/bin";
const AS_POSTGRES: &str = "setpriv --reuid=postgres --regid=postgres --init-groups";
/// 15 MB each.
const SCALE: u32 = 4;
/// How many clients there are.
const CLIENTS: u32 = 8;

fn ok(node: &Machine, script: &str) -> anyhow::Result<Output> {
    let output = node.exec(script, MAKE_LIMIT)?;
    if !output.ok() {
        bail!("{}: `{script}`: {output:?}", node.name());
    }
    Ok(output)
}

fn mount_point(system: System) -> String {
    format!("/srv/{}", system.disk())
}

fn start(system: System) -> String {
    let at = mount_point(system);
    format!(
        "{AS_POSTGRES} {BIN}/pg_ctl -s -w -t 120 -D {at}/data -l /tmp/pg.log \
         -o \"-k /tmp -c listen_addresses= -c shared_buffers=64MB -c max_wal_size=128MB\" start </dev/null >/dev/null"
    )
}

fn stop(system: System) -> String {
    let at = mount_point(system);
    format!("{AS_POSTGRES} {BIN}/pg_ctl -s -w -t 120 -D {at}/data -m fast stop >/dev/null")
}

/// Makes ext4 on the device, which loses what it had, and a database: the one of `template` where there is one.
///
/// # Errors
/// If a step fails.
pub(crate) fn make(
    bed: &Bed,
    system: System,
    ready: &Ready,
    template: Option<System>,
) -> anyhow::Result<()> {
    let one = bed.one();
    let (at, device) = (mount_point(system), &ready.device);
    ok(
        one,
        &format!(
            "set -e; mkfs.ext4 -q -F -E nodiscard {device}; mkdir -p {at}; mount {device} {at}; chmod 755 {at}"
        ),
    )?;
    if let Some(template) = template {
        let from = mount_point(template);
        ok(one, &format!("cp -a {from}/data {at}/ && sync"))?;
        return Ok(());
    }
    ok(
        one,
        &format!(
            "set -e; mkdir {at}/data; chown postgres {at}/data; chmod 700 {at}/data; touch /tmp/pg.log; chown postgres /tmp/pg.log\n\
             {AS_POSTGRES} {BIN}/initdb -A trust -D {at}/data >/dev/null\n{}\n\
             {AS_POSTGRES} {BIN}/pgbench -q -i -s {SCALE} -h /tmp postgres 2>/dev/null\n{}\nsync",
            start(system),
            stop(system)
        ),
    )
    .map(drop)
}

/// Transactions a second, and what each cost.
///
/// # Errors
/// If something fails.
pub(crate) fn run(
    bed: &Bed,
    system: System,
    ready: &Ready,
    seconds: u64,
) -> anyhow::Result<(f64, Cost)> {
    let one = bed.one();
    ok(one, &start(system))?;
    let outcome = clients(bed, ready, seconds);
    // Also where the clients failed: the next system needs the place.
    let stopped = ok(one, &stop(system));
    let outcome = outcome?;
    stopped?;
    Ok(outcome)
}

fn clients(bed: &Bed, ready: &Ready, seconds: u64) -> anyhow::Result<(f64, Cost)> {
    let one = bed.one();
    let command =
        format!("exec {AS_POSTGRES} {BIN}/pgbench -n -c {CLIENTS} -T {seconds} -h /tmp postgres");
    let limit = MAKE_LIMIT + Duration::from_secs(2 * seconds);
    let mut running = one.spawn(&command, limit)?;
    // How many transactions there were in the window is told afterwards.
    let cost = sample::watch(bed, &ready.block, &mut running, seconds, |_, _| 1.0)?;
    let output = running.wait()?;
    ensure!(output.ok(), "{command}: {output:?}");
    let rate = transactions_per_s(&output.stdout).with_context(|| format!("{output:?}"))?;
    Ok((rate, each(cost, rate)))
}

/// A cost that was counted for the whole window, for each transaction at this rate.
fn each(whole: Cost, rate: f64) -> Cost {
    let seconds = 1.0 / whole.operations_per_s;
    let transactions = rate * seconds;
    Cost {
        cpu_us: whole.cpu_us.map(|cpu| cpu / transactions),
        switches: whole.switches.map(|switches| switches / transactions),
        operations_per_s: rate,
        ..whole
    }
}

/// `tps = 85.1 (without initial connection time)`; nothing where a transaction failed.
fn transactions_per_s(text: &str) -> Option<f64> {
    let value = |name: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
        rest.split_whitespace().next()
    };
    if value("number of failed transactions: ")? != "0" {
        return None;
    }
    let rate: f64 = value("tps = ")?.parse().ok()?;
    (rate > 0.0).then_some(rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_counts_only_if_no_transaction_failed() {
        let text = |failed: &str| {
            format!(
                "number of failed transactions: {failed} (0.000%)\nlatency average = 94.1 ms\n\
                 tps = 85.123 (without initial connection time)\n"
            )
        };
        assert_eq!(transactions_per_s(&text("0")), Some(85.123));
        assert_eq!(transactions_per_s(&text("3")), None);
        assert_eq!(transactions_per_s("tps = 85\n"), None);
    }

    #[test]
    fn the_cost_of_a_window_is_divided_by_its_transactions() {
        let whole = Cost {
            cpu_us: [2e6, 1e6],
            switches: [4000.0, 2000.0],
            waited: [0.1, 0.2],
            operations_per_s: 0.25,
        };
        let each = each(whole, 50.0);
        assert_eq!(each.cpu_us, [1e4, 5e3]);
        assert_eq!(each.switches, [20.0, 10.0]);
        assert_eq!((each.waited, each.operations_per_s), ([0.1, 0.2], 50.0));
    }
}
