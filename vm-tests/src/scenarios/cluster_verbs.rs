//! What an administrator does with the whole cluster: timeouts raised for a while, maintenance, everything stopped, a new file.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use vm_guest::record::Kind;

use super::power::endless;
use crate::checker::{Durability, check};
use crate::controlled::{CONFIG_FILE, Controlled, INTERCONNECTS};
use crate::machine::Machine;
use crate::network::Net;
use crate::progress::say;
use crate::scenario::{Context, Scenario};
use crate::volume::{KEY_FILE, Pair};
use crate::wait::wait_until;
use crate::writer::Fsync;

pub(super) const LONG: &[Scenario] = &[Scenario {
    name: "cluster-verbs",
    about: "raised timeouts bear a stall, a file is pushed, the key rotated, a suspended cluster takes nothing over, all is stopped and started",
    run: cluster_verbs,
}];

const LIMIT: Duration = Duration::from_secs(120);
const ACKS: usize = 100;
/// Longer than a failover takes, shorter than five times the heartbeat's timeout.
const STALL: Duration = Duration::from_secs(7);
const KEY_BYTES_MAX: usize = 4096;
/// What a change of the authority replaces on each node, and what a disk that outlives a boot would have.
const TRUST_FILES: [&str; 4] = [
    "/etc/lockstep/trust/node.pem",
    "/etc/lockstep/trust/node.key",
    "/etc/lockstep/trust/authority.pem",
    "/etc/lockstep/trust/witness.pem",
];
const TRUST_BYTES_MAX: usize = 64 * 1024;
const NEW_FILE: &str = "/root/new.toml";

struct Bed {
    controlled: Controlled,
}

impl Bed {
    fn pair(&self) -> &Pair {
        &self.controlled.pair
    }

    fn lockstep(&self, node: &Machine, words: &str) -> anyhow::Result<String> {
        let output = node.exec(&format!("lockstep {words}"), LIMIT)?;
        let logs = || self.controlled.logs();
        ensure!(output.ok(), "lockstep {words}: {output:?}\n{}", logs());
        say(format!("{}: lockstep {words}", node.name()));
        Ok(output.stdout)
    }

    /// The cluster, as this node sees it. It begins anew after a push.
    fn told(&self, node: &Machine, pointer: &str) -> anyhow::Result<Value> {
        let text = node.exec("lockstep status --json", LIMIT)?.stdout;
        let status: Value = serde_json::from_str(&text).unwrap_or_default();
        Ok(status.pointer(pointer).cloned().unwrap_or_default())
    }

    fn wait_told(&self, node: &Machine, pointer: &str, wanted: &str) -> anyhow::Result<()> {
        let what = format!("{pointer} = {wanted} on {}", node.name());
        let waited = wait_until(LIMIT, &what, || Ok(self.told(node, pointer)? == wanted));
        waited.with_context(|| self.controlled.logs()).map(drop)
    }

    /// All the time this is so.
    fn stays(&self, what: &str, holds: impl Fn() -> anyhow::Result<bool>) -> anyhow::Result<()> {
        let end = Instant::now() + STALL;
        while Instant::now() < end {
            ensure!(holds()?, "not {what}\n{}", self.controlled.logs());
        }
        Ok(())
    }

    fn role(&self, node: &Machine, role: &str) -> anyhow::Result<()> {
        let waited = self.pair().wait_status(node, "/role", role);
        waited.with_context(|| self.controlled.logs()).map(drop)
    }
}

fn cluster_verbs(context: &Context) -> anyhow::Result<()> {
    let bed = Bed {
        controlled: Controlled::boot_joined(context)?,
    };
    let (one, two) = (bed.pair().one(), bed.pair().two());
    let active = if bed.pair().status(one)?["role"] == "active" {
        one
    } else {
        two
    };
    let other = bed.pair().other(active);
    let writer = endless(1, Fsync::Every(16)).start(active)?;
    bed.pair().wait_acks(1, ACKS)?;
    raised(&bed, active, other)?;
    pushed(&bed, active, other)?;
    rotated(&bed, active, other)?;
    another_authority(&bed, active, other)?;
    bed.pair()
        .wait_acks(1, ACKS + bed.pair().cluster.ledger(&[1]).count(Kind::Ack))?;
    suspended(&bed, active, other)?;
    drop(writer);
    let ledger = bed.pair().cluster.ledger(&[1]);
    check(&ledger, other.disk("data")?, Durability::Acked)?.require_ok()?;
    stopped(&bed, active, other)?;
    bed.pair().assert_equal_copies()
}

/// A control plane stands still for longer than the timeout, and does not count as dead.
fn raised(bed: &Bed, active: &Machine, other: &Machine) -> anyhow::Result<()> {
    bed.lockstep(active, "timeouts scale 5 --for 10m")?;
    for node in [active, other] {
        bed.wait_told(node, "/timeouts/stage", "raised")?;
    }
    other.exec_ok("pkill -STOP -x lockstepd")?;
    bed.stays("alive", || {
        Ok(bed.told(active, "/peer/presence")? == "alive")
    })?;
    other.exec_ok("pkill -CONT -x lockstepd")?;
    bed.lockstep(other, "timeouts reset")?;
    for node in [active, other] {
        bed.wait_told(node, "/timeouts/stage", "as-configured")?;
    }
    say(format!(
        "lockstepd stood still for {STALL:?} under raised timeouts: nothing was told"
    ));
    Ok(())
}

/// While the nodes do not hear each other on any interconnect a push changes nothing; afterwards both have the file.
fn pushed(bed: &Bed, active: &Machine, other: &Machine) -> anyhow::Result<()> {
    active.exec_ok(&format!(
        "(cat {CONFIG_FILE}; printf '\\n[timing]\\nheartbeat_timeout_ms = 2500\\n') >{NEW_FILE}"
    ))?;
    let before = [active, other].map(|node| bed.lockstep(node, "config show --text"));
    for net in INTERCONNECTS {
        bed.pair().cluster.cut(active, other, net)?;
    }
    let refused = active.exec(&format!("lockstep config push {NEW_FILE}"), LIMIT)?;
    ensure!(
        !refused.ok() && refused.stderr.starts_with("LS6101"),
        "a push during a partition: {refused:?}\n{}",
        bed.controlled.logs()
    );
    for net in INTERCONNECTS {
        active.hear(net)?;
        other.hear(net)?;
    }
    bed.wait_told(active, "/peer/presence", "alive")?;
    for (node, before) in [active, other].into_iter().zip(before) {
        ensure!(
            bed.lockstep(node, "config show --text")? == before?,
            "it changed"
        );
    }
    bed.lockstep(active, &format!("config push {NEW_FILE}"))?;
    for node in [active, other] {
        let text = bed.lockstep(node, "config show --text")?;
        ensure!(text.contains("heartbeat_timeout_ms = 2500"), "{text}");
        bed.wait_told(node, "/peer/presence", "alive")?;
    }
    bed.role(active, "active")
}

/// Under a writer; the mirror link comes back by the new key, and so does every machine that boots later.
fn rotated(bed: &Bed, active: &Machine, other: &Machine) -> anyhow::Result<()> {
    let key = |node: &Machine| node.exec_ok("sha256sum </etc/lockstep/cluster.key");
    let before = key(active)?;
    bed.lockstep(other, "cluster rotate-keys --wait")?;
    for node in [active, other] {
        bed.lockstep(node, "cluster keys")?;
        ensure!(key(node)? != before, "the key of {} stayed", node.name());
        let bytes = node.get(KEY_FILE, 0, KEY_BYTES_MAX)?;
        bed.pair().keep(node, KEY_FILE, bytes);
    }
    bed.pair().cluster.cut(active, other, Net::Mirror)?;
    let down = |node: &Machine| anyhow::Ok(bed.pair().status(node)?["link"]["state"] != "up");
    let waited = wait_until(LIMIT, "the mirror link down", || {
        Ok(down(active)? && down(other)?)
    });
    waited.with_context(|| bed.controlled.logs())?;
    for node in [active, other] {
        node.hear(Net::Mirror)?;
    }
    bed.pair().wait_in_sync()
}

/// Under the same writer: both nodes and the witness come to another authority, and hear each other all the time. The power cut after
/// it, and the machine that boots then, go by the new certificates.
fn another_authority(bed: &Bed, active: &Machine, other: &Machine) -> anyhow::Result<()> {
    let print = |node: &Machine| node.exec_ok("sha256sum </etc/lockstep/trust/authority.pem");
    let before = print(active)?;
    let lost =
        |node: &Machine| node.exec_ok("grep -c LS6016 /var/log/lockstep/lockstepd.log; true");
    let losses = [lost(active)?, lost(other)?];
    bed.lockstep(other, "cluster rotate-authority --wait")?;
    for node in [active, other] {
        bed.lockstep(node, "cluster trust")?;
        ensure!(
            print(node)? != before,
            "the authority of {} stayed",
            node.name()
        );
        for path in TRUST_FILES {
            let bytes = node.get(path, 0, TRUST_BYTES_MAX)?;
            bed.pair().keep(node, path, bytes);
        }
        bed.wait_told(node, "/peer/presence", "alive")?;
        wait_until(LIMIT, "the witness answers", || {
            Ok(bed.told(node, "/arbiter/answers")? == true)
        })?;
    }
    ensure!(
        [lost(active)?, lost(other)?] == losses,
        "the witness was lost\n{}",
        bed.controlled.logs()
    );
    bed.lockstep(active, "cluster renew-certificates")?;
    for node in [active, other] {
        for path in TRUST_FILES {
            let bytes = node.get(path, 0, TRUST_BYTES_MAX)?;
            bed.pair().keep(node, path, bytes);
        }
    }
    bed.role(active, "active")
}

/// The active machine loses its power in a suspended cluster: nobody takes over before it is resumed.
fn suspended(bed: &Bed, active: &Machine, other: &Machine) -> anyhow::Result<()> {
    bed.lockstep(other, "cluster suspend --wait")?;
    active.power_cut(7919)?;
    bed.wait_told(other, "/peer/presence", "dead")?;
    bed.stays("fenced", || {
        Ok(bed.pair().status(other)?["role"] == "fenced")
    })?;
    say("the active machine is gone for longer than a failover takes: nobody took over");
    bed.lockstep(other, "cluster resume")?;
    bed.role(other, "active")?;
    bed.controlled.boot_again(active)?;
    bed.pair().wait_in_sync()
}

fn stopped(bed: &Bed, active: &Machine, other: &Machine) -> anyhow::Result<()> {
    bed.wait_told(other, "/peer/presence", "alive")?;
    bed.lockstep(active, "cluster stop --wait")?;
    for node in [active, other] {
        bed.role(node, "fenced")?;
    }
    bed.stays("stopped", || {
        let fenced = |node: &Machine| anyhow::Ok(bed.pair().status(node)?["role"] == "fenced");
        Ok(fenced(active)? && fenced(other)?)
    })?;
    bed.lockstep(other, "cluster start --wait")?;
    let serves = |node: &Machine| anyhow::Ok(bed.pair().status(node)?["role"] == "active");
    let waited = wait_until(LIMIT, "somebody who serves", || {
        Ok(serves(active)? || serves(other)?)
    });
    waited.with_context(|| bed.controlled.logs()).map(drop)
}
