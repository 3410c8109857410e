//! Both servers lose power, and the volume is open soon after the second daemon's start.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::measure::{Traffic, mib};
use super::power::endless;
use super::rejoin::{ACKS_BEFORE_CUT, EXTENT_BYTES, LEDGER_BYTES, VOLUME_BYTES};
use crate::checker::{Durability, check};
use crate::machine::Machine;
use crate::progress::say;
use crate::scenario::{Context, Scenario};
use crate::volume::Pair;
use crate::writer::Fsync;

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "both-down",
    about: "both servers lose power under load and come back in either order: no full copy, soon open, nothing flushed is lost",
    run: both_down,
}];

/// Power cuts; in every other one the old active node comes back first.
const ROUNDS: u32 = 6;
/// From the start of the second daemon to the first read where it was served before: the median of three rounds, less
/// what the host let the machine wait for a processor. The goal is 2 s; most of that is the emulated processor, which
/// shares caches and threads with whatever else the host does.
const OPEN_LIMIT: Duration = Duration::from_secs(4);
/// The same on the standby, which cannot be activated before it is filled.
const FILLED_LIMIT: Duration = Duration::from_secs(10);
const COMMAND_LIMIT: Duration = Duration::from_secs(120);

fn both_down(context: &Context) -> anyhow::Result<()> {
    let pair = Pair::boot_sized(context, VOLUME_BYTES)?;
    let (mut at_once, mut filled) = (Vec::new(), Vec::new());
    for run in 1..=ROUNDS {
        let standby_first = run % 2 == 1;
        let opened = both_down_once(&pair, run, standby_first)?;
        let list = if standby_first {
            &mut at_once
        } else {
            &mut filled
        };
        list.push(opened.fair());
    }
    judge("the old active node", at_once, OPEN_LIMIT)?;
    judge("the standby, filled first", filled, FILLED_LIMIT)
}

fn judge(what: &str, opened: Vec<Duration>, limit: Duration) -> anyhow::Result<()> {
    let median = median(opened.clone());
    say(format!(
        "{what}: median {:.2} s from the second daemon's start to the first read, less what the machine waited for a \
         processor of the host",
        median.as_secs_f32()
    ));
    ensure!(
        median <= limit,
        "{what}: the device opens late: {opened:?}, the limit is {limit:?}"
    );
    Ok(())
}

fn median(mut values: Vec<Duration>) -> Duration {
    values.sort();
    values[values.len() / 2]
}

/// Starts the daemon and opens the device as soon as that is allowed: when each step was done, in milliseconds of the
/// machine's clock.
const OPEN: &str = r#"
now() { echo $(( $(date +%s%N) / 1000000 )); }
echo "begin $(now)"
lockstep volume start data >/dev/null || exit 1
echo "started $(now)"
tries=0
until lockstep volume activate data >/tmp/said 2>&1; do
  grep -o 'LS[0-9]*' /tmp/said | head -n 1 >>/tmp/refusals
  tries=$((tries + 1)); [ $tries -lt 300 ] || { cat /tmp/said >&2; exit 1; }
done
echo "activated $(now)"
dd if=/dev/lockstep/data of=/dev/null bs=4k count=1 iflag=direct status=none || exit 1
echo "read $(now)"
"#;

/// What the daemon's log says of the same.
const SAID: &str = r#"
said() { line=$(grep -m 1 $2 /var/log/lockstep/data.log) && echo "$1 $(date -d "${line%% *}" +%s%3N)"; }
said ready LS2021
said connected LS2001
said served LS2005
grep -o -m 1 'took_ms=[0-9]*' /var/log/lockstep/data.log | tr = ' '
touch /tmp/refusals
echo "refused $(uniq -c /tmp/refusals | tr -s ' \n' '  ')"
"#;

/// How long the second daemon's start took.
#[derive(Debug)]
struct Opened {
    /// From the command to the first read, by the machine's clock.
    whole: Duration,
    /// Of that it waited for a processor of the host.
    waited: Duration,
}

impl Opened {
    fn fair(&self) -> Duration {
        self.whole.saturating_sub(self.waited)
    }

    fn of(said: &str, first: &Machine, waited: Duration) -> anyhow::Result<Self> {
        let words: HashMap<&str, &str> = said
            .lines()
            .filter_map(|line| line.split_once(' '))
            .collect();
        let word = |name: &str| {
            let found = words.get(name).copied();
            found.with_context(|| format!("no {name}: {said}"))
        };
        let number = |name: &str| anyhow::Ok(word(name)?.parse::<u64>()?);
        let begin = number("begin")?;
        let since = |name: &str| anyhow::Ok(number(name)?.saturating_sub(begin));
        let opened = Self {
            whole: Duration::from_millis(since("read")?),
            waited,
        };
        say(format!(
            "{} first: daemon begins after {} ms, ready {}, connected {}, start command ends {}, served {}, activate ends {} \
             (refused:{}), read {}; of that {} ms waiting for the host: {:.2} s",
            first.name(),
            since("ready")?.saturating_sub(number("took_ms")?),
            since("ready")?,
            since("connected")?,
            since("started")?,
            since("served")?,
            since("activated")?,
            words.get("refused").copied().unwrap_or(" never"),
            opened.whole.as_millis(),
            waited.as_millis(),
            opened.fair().as_secs_f32()
        ));
        Ok(opened)
    }
}

fn both_down_once(pair: &Pair, run: u32, standby_first: bool) -> anyhow::Result<Opened> {
    let (active, standby) = (pair.one(), pair.two());
    let writer = endless(run, Fsync::Every(8)).start(active)?;
    pair.wait_acks(run, ACKS_BEFORE_CUT)?;
    active.power_cut(u64::from(run) * 41)?;
    standby.power_cut(u64::from(run) * 43)?;
    drop(writer);
    pair.boot_again(active)?;
    pair.boot_again(standby)?;
    let (first, last) = if standby_first {
        (standby, active)
    } else {
        (active, standby)
    };
    pair.start(first)?;
    // Alone neither knows whether the other one served on: it needs consent, or the operator's word.
    let code = if standby_first { "LS1002" } else { "LS1006" };
    pair.refused(first, "activate", code)?;
    let before = last.host_delay()?;
    let output = last.exec(OPEN, COMMAND_LIMIT)?;
    let waited = last.host_delay()? - before;
    ensure!(output.ok(), "{output:?}\n{}", pair.logs());
    let said = output.stdout + &last.exec_ok(SAID)?;
    let opened = Opened::of(&said, first, waited).with_context(|| pair.logs())?;
    pair.wait_in_sync()?;
    let sent = Traffic::so_far(pair, active)?.resync + Traffic::so_far(pair, standby)?.resync;
    say(format!("{:.2} MiB sent", mib(sent)));
    ensure!(
        sent <= LEDGER_BYTES + EXTENT_BYTES,
        "{sent} bytes were sent; only {LEDGER_BYTES} were ever open"
    );
    last.exec_ok("sync")?;
    pair.assert_equal_copies()?;
    let runs: Vec<u32> = (1..=run).collect();
    let ledger = pair.cluster.ledger(&runs);
    for node in [active, standby] {
        check(&ledger, node.disk("data")?, Durability::Flushed)?.require_ok()?;
    }
    if last.name() != active.name() {
        pair.lockstep(last, "deactivate")?;
        pair.lockstep(active, "activate")?;
    }
    Ok(opened)
}
