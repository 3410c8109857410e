//! The demo: a database on a mirrored volume, a power cut in the middle of it, and nothing lost.

use std::io::{IsTerminal, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::machine::{Machine, Running};
use crate::network::Net;
use crate::progress::step;
use crate::scenario::Context;
use crate::volume::{DEVICE, Pair, VOLUME_BYTES, with_disks};
use crate::wait::wait_until;

const LIMIT: Duration = Duration::from_secs(120);
const COPY_LIMIT: Duration = Duration::from_secs(300);
const ROWS_BEFORE_CUT: u64 = 400;
const ROWS_AFTER_CUT: u64 = 200;
const STATUS_INTERVAL: Duration = Duration::from_secs(2);
/// A client that commits one row after the other and says so after each commit. With a write-ahead log
/// a commit that is confirmed is durable; with SQLite's default rollback journal the last commit may be
/// undone by a power cut (the journal's removal is not synced), on any disk.
const CLIENT: &str = r#"
(echo 'PRAGMA synchronous=FULL;'; while :; do
  echo "INSERT INTO orders(item) VALUES(hex(randomblob(100))); SELECT 'row ' || max(id) FROM orders;"; done) |
  sqlite3 -bail /srv/db/shop.db
"#;

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
    let context = Context::new("demo")?;
    chapter("1. Two servers and a volume that both hold");
    let binaries = context.product()?;
    let mut builder = with_disks(context.cluster(), VOLUME_BYTES).binaries(&binaries);
    if after == AfterTheEnd::Keep {
        builder = builder.shells();
    }
    let cluster = builder.boot()?;
    let creating = step("lockstep volume create on node1, create --join on node2, start on both");
    let pair = Pair::create(cluster)?;
    creating.done();
    let first_copy = follow_copy(&pair, pair.one(), 0, "first copy, node1 to node2")?;
    let story = Story {
        pair: &pair,
        first_copy,
    };
    let figures = story.tell()?;
    println!();
    println!("VERDICT: every committed row survived; the copies are identical.");
    println!("{figures}");
    println!("  told in {:.0} s", start.elapsed().as_secs_f32());
    if after == AfterTheEnd::Keep {
        keep(&pair)?;
    }
    Ok(())
}

struct Story<'a> {
    pair: &'a Pair,
    first_copy: Copied,
}

/// What a resync sent, and how long it took.
struct Copied {
    bytes: u64,
    took: Duration,
}

impl Story<'_> {
    fn tell(&self) -> anyhow::Result<String> {
        let client = self.database()?;
        let (committed, cut, mut client) = self.power_cut(client)?;
        let stall = cut.as_secs_f32();
        let back = self.coming_back(&mut client)?;
        Ok(format!(
            "  rows committed before the cut   {committed}, all found\n  \
               stall seen by the writer        {stall:.1} s (from the power cut to its next commit; the takeover was commanded)\n  \
               first copy                      {} sent in {:.1} s (zeroes are not sent)\n  \
               node1 brought up to date        {} sent in {:.1} s: what may differ",
            HumanBytes(self.first_copy.bytes),
            self.first_copy.took.as_secs_f32(),
            HumanBytes(back.bytes),
            back.took.as_secs_f32()
        ))
    }

    fn database(&self) -> anyhow::Result<Running> {
        let one = self.pair.one();
        chapter("2. A file system and a database on it");
        self.serve_on(one, "activate")?;
        // A discard of the whole device would put all of it into the activity log, and after the power
        // cut all of it would be copied.
        one.exec_ok(&format!("mkfs.ext4 -q -E nodiscard {DEVICE}"))?;
        mount(one)?;
        one.exec_ok(
            "sqlite3 /srv/db/shop.db 'PRAGMA journal_mode=WAL; CREATE TABLE orders(id INTEGER PRIMARY KEY, item TEXT)'",
        )?;
        tell("node1: ext4 and an SQLite database with an `orders` table on /dev/lockstep/data");
        let mut client = one.spawn(CLIENT, Duration::from_secs(900))?;
        self.watch_client(one, &mut client, ROWS_BEFORE_CUT)?;
        Ok(client)
    }

    /// Rows committed before, the writer's stall, and the client on the other node.
    fn power_cut(&self, mut client: Running) -> anyhow::Result<(u64, Duration, Running)> {
        let (one, two) = (self.pair.one(), self.pair.two());
        chapter("3. node1 loses its power in the middle of it");
        let lost = one.power_cut(20_26)?;
        let cut = Instant::now();
        let committed = rows(&mut client)?;
        drop(client);
        tell(format!(
            "the client had {committed} commits confirmed; node1's disks lost {} unflushed sectors and tore {}",
            lost.lost, lost.torn
        ));
        self.pair.wait_status(two, "/link/state", "down")?;
        show_status(self.pair, two)?;
        let refused = self.pair.try_lockstep(two, "activate")?;
        tell(format!(
            "without your word node2 does not take over:\n{}",
            indent(&refused.stderr)
        ));
        self.serve_on(two, "takeover --confirm 'node1 is off'")?;
        mount(two)?;
        find_rows(two, committed)?;
        let mut client = two.spawn(CLIENT, Duration::from_secs(900))?;
        wait_until(LIMIT, "the client to go on", || {
            Ok(rows(&mut client)? > committed)
        })?;
        let stall = cut.elapsed();
        tell(format!(
            "the client goes on on node2, {:.1} s after the cut",
            stall.as_secs_f32()
        ));
        Ok((committed, stall, client))
    }

    fn coming_back(&self, client: &mut Running) -> anyhow::Result<Copied> {
        let (one, two) = (self.pair.one(), self.pair.two());
        chapter("4. node1 comes back and is brought up to date");
        let booting = step("node1 boots");
        self.pair.boot_again(one)?;
        booting.done();
        let sent_before = sent_bytes(&self.pair.status(two)?);
        self.pair.start(one)?;
        let copied = follow_copy(
            self.pair,
            two,
            sent_before,
            "resync, node2 to node1, while the client writes",
        )?;
        tell(format!(
            "{} were sent, of a volume of {}: what may differ, that is blocks written since the cut, and the extents \
             of 4 MiB that node1 had written to",
            HumanBytes(copied.bytes),
            HumanBytes(self.pair.volume_bytes()?)
        ));
        let before = rows(client)?;
        self.watch_client(two, client, before + ROWS_AFTER_CUT)?;
        client.kill()?;
        two.exec_ok("fuser -k /srv/db || true; sync; umount /srv/db")?;
        show_status(self.pair, two)?;
        self.pair.assert_equal_copies()?;
        Ok(copied)
    }

    fn serve_on(&self, node: &Machine, words: &str) -> anyhow::Result<()> {
        let said = self.pair.lockstep(node, words)?;
        let verb = words.split(' ').next().unwrap_or(words);
        tell(format!(
            "{}: lockstep volume {verb} data: {}",
            node.name(),
            said.trim()
        ));
        Ok(())
    }

    /// Shows status and commits until there are enough.
    fn watch_client(&self, node: &Machine, client: &mut Running, until: u64) -> anyhow::Result<()> {
        let mut shown = Instant::now() - STATUS_INTERVAL;
        wait_until(LIMIT, "commits", || {
            let now = rows(client)?;
            if shown.elapsed() >= STATUS_INTERVAL {
                shown = Instant::now();
                tell(format!(
                    "{}: {now} rows committed; {}",
                    node.name(),
                    verdict_line(self.pair, node)?
                ));
            }
            Ok(now >= until)
        })?;
        Ok(())
    }
}

/// Every committed row must be there.
fn find_rows(node: &Machine, committed: u64) -> anyhow::Result<()> {
    let check = node.exec_ok("sqlite3 /srv/db/shop.db 'PRAGMA integrity_check'")?;
    let query =
        format!("sqlite3 /srv/db/shop.db 'SELECT count(*) FROM orders WHERE id <= {committed}'");
    let found: u64 = node.exec_ok(&query)?.parse()?;
    let missing = committed.saturating_sub(found);
    tell(format!(
        "node2: integrity_check says {check}; of {committed} committed rows {missing} are missing"
    ));
    ensure!(
        check == "ok" && missing == 0,
        "rows were lost: {committed} committed, {found} found"
    );
    Ok(())
}

fn chapter(title: &str) {
    println!("\n{title}");
}

fn tell(line: impl AsRef<str>) {
    println!("  {}", line.as_ref());
    let _ = std::io::stdout().flush();
}

fn indent(text: &str) -> String {
    text.lines()
        .map(|line| format!("      {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn mount(node: &Machine) -> anyhow::Result<()> {
    node.exec_ok(&format!("mkdir -p /srv/db && mount {DEVICE} /srv/db"))
        .map(drop)
}

fn rows(client: &mut Running) -> anyhow::Result<u64> {
    let text = client.stdout_so_far()?;
    let last = text
        .lines()
        .filter_map(|line| line.strip_prefix("row "))
        .next_back();
    Ok(last.and_then(|number| number.parse().ok()).unwrap_or(0))
}

fn verdict_line(pair: &Pair, node: &Machine) -> anyhow::Result<String> {
    let output = pair.try_lockstep(node, "status")?;
    Ok(output.stdout.lines().next().unwrap_or_default().to_owned())
}

fn show_status(pair: &Pair, node: &Machine) -> anyhow::Result<()> {
    let output = pair.try_lockstep(node, "status")?;
    tell(format!(
        "{}: lockstep volume status\n{}",
        node.name(),
        indent(&output.stdout)
    ));
    Ok(())
}

/// What this node's daemon has sent for resyncs so far.
fn sent_bytes(status: &Value) -> u64 {
    let sent = status.pointer("/counters/resync_sent_bytes");
    sent.and_then(Value::as_u64).unwrap_or(0)
}

/// A bar for the resync. `sent_before`: what its source had sent for earlier ones.
fn follow_copy(
    pair: &Pair,
    source: &Machine,
    sent_before: u64,
    title: &str,
) -> anyhow::Result<Copied> {
    let start = Instant::now();
    let bar = std::io::stderr().is_terminal().then(|| {
        let template = "  {msg} [{bar:32}] {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}";
        let style =
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::new(0)
            .with_style(style)
            .with_message(title.to_owned())
    });
    let mut sent = sent_before;
    let waited = wait_until(COPY_LIMIT, title, || {
        let status = pair.status(source)?;
        sent = sent_bytes(&status);
        let progress = |field| status["progress"][field].as_u64();
        if let (Some(bar), Some(copied), Some(total)) =
            (&bar, progress("copied_bytes"), progress("total_bytes"))
        {
            bar.set_length(total);
            bar.set_position(copied);
        }
        Ok(status["peer_copy"] == "in-sync" && status["link"]["state"] == "up")
    });
    waited.with_context(|| pair.logs())?;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let (bytes, took) = (sent.saturating_sub(sent_before), start.elapsed());
    tell(format!(
        "{title}: both copies are equal after {:.1} s, {} sent",
        took.as_secs_f32(),
        HumanBytes(bytes)
    ));
    Ok(Copied { bytes, took })
}

fn keep(pair: &Pair) -> anyhow::Result<()> {
    println!("\nThe two machines stay up until you press Enter here. A shell in one of them:");
    for node in [pair.one(), pair.two()] {
        let socket = pair.cluster.shell_socket_of(node);
        println!(
            "  cargo vm attach {}    # {}, {}",
            socket.display(),
            node.name(),
            node.address(Net::Mirror)
        );
    }
    println!("Try `lockstep volume status`, `mount {DEVICE} /srv/db` where it is active.");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(())
}
