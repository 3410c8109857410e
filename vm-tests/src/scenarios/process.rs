//! The daemon dies and comes back under a mounted file system and a running database.

use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::database::{CLIENT, rows};
use crate::machine::Machine;
use crate::progress::say;
use crate::scenario::{Context, Scenario};
use crate::volume::{DEVICE, Pair};
use crate::wait::wait_until;

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "daemon-kill",
    about: "kill -9 of either daemon under ext4 and a running database: a pause, no error",
    run: daemon_kill,
}];

const LIMIT: Duration = Duration::from_secs(120);
const KILLS: usize = 3;

fn kill(node: &Machine) -> anyhow::Result<()> {
    node.exec_ok("pkill -9 -f '[u]blk-mirror run'").map(drop)
}

fn daemon_kill(context: &Context) -> anyhow::Result<()> {
    let pair = Pair::boot(context)?;
    let (one, two) = (pair.one(), pair.two());
    one.exec_ok(&format!(
        "mkfs.ext4 -q {DEVICE} && mkdir -p /mnt && mount {DEVICE} /mnt"
    ))?;
    let mut client = one.spawn(CLIENT, Duration::from_secs(600))?;
    for round in 1..=KILLS {
        for node in [one, two] {
            let before = rows(&mut client)?;
            wait_until(LIMIT, "rows", || Ok(rows(&mut client)? > before + 20))
                .with_context(|| pair.logs())?;
            kill(node)?;
            pair.start(node)?;
            let before = rows(&mut client)?;
            let waited = wait_until(LIMIT, "rows after the restart", || {
                Ok(rows(&mut client)? > before + 5)
            });
            let waited = waited.with_context(|| pair.logs())?;
            say(format!(
                "round {round}: {} killed, rows again after {:.1} s",
                node.name(),
                waited.as_secs_f32()
            ));
        }
    }
    one.exec_ok("touch /tmp/stop")?;
    let output = client.wait()?;
    ensure!(
        output.ok() && output.stderr.is_empty(),
        "the database saw an error: {}",
        output.stderr
    );
    let check = one.exec_ok("sqlite3 /mnt/app.db 'PRAGMA integrity_check'")?;
    ensure!(check == "ok", "{check}");
    let dmesg = one.exec_ok("dmesg | grep -iE 'i/o error|ext4.*error' || true")?;
    ensure!(dmesg.is_empty(), "{dmesg}");
    one.exec_ok("umount /mnt && sync")?;
    pair.wait_in_sync()?;
    pair.assert_equal_copies()
}
