//! From three machines with the programs on them to a pair that is protected, by what the screens say.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use vm_guest::record::Kind;

use super::power::{BLOCKS, endless};
use crate::checker::{Durability, check};
use crate::controlled::Controlled;
use crate::progress::say;
use crate::scenario::{Context, Scenario};
use crate::volume::DEVICE;
use crate::wait::wait_until;
use crate::writer::{Fsync, Writer};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "cluster-join",
    about: "a cluster is made and joined by one-time tokens alone, witness included; lockstepd starts the volume's daemons, \
            and again the one that is killed; then the active server loses power",
    run: joined,
}];

const ACKS: usize = 300;
const LIMIT: Duration = Duration::from_secs(60);

fn joined(context: &Context) -> anyhow::Result<()> {
    let controlled = Controlled::boot_joined(context)?;
    let pair = &controlled.pair;
    let (one, two) = (pair.one(), pair.two());
    let secrets = one.exec_ok("find /etc/lockstep -name '*.key' -o -path '*authority/*'")?;
    for node in [one, two, controlled.witness()] {
        let readable =
            node.exec_ok("find /etc /var/lib -path '*lockstep*' -name '*.key' -perm /077")?;
        ensure!(readable.is_empty(), "others can read {readable}");
    }
    ensure!(secrets.contains("cluster.key"), "{secrets}");
    let verdict = one.exec("lockstep status", LIMIT)?;
    ensure!(
        verdict.ok() && verdict.stdout.contains("HEALTHY"),
        "{verdict:?}"
    );
    let writer = endless(1, Fsync::Every(16)).start(one)?;
    pair.wait_acks(1, ACKS)?;
    // Nobody types anything: lockstepd starts it again under the writer.
    one.exec_ok("pkill -9 -f '[u]blk-mirror run'")?;
    pair.wait_acks(1, pair.cluster.ledger(&[1]).count(Kind::Ack) + ACKS)?;
    controlled.wait_log(one, "LS6121\\|LS6120", "LS6120")?;
    pair.wait_in_sync()?;
    let waiting = Writer {
        fsync: Fsync::Every(16),
        seconds: 5,
        wait: true,
        ..Writer::new(2, DEVICE, BLOCKS)
    };
    let waiting = waiting.start(two)?;
    one.power_cut(7)?;
    drop(writer);
    wait_until(LIMIT, "a write on the other server", || {
        Ok(pair.cluster.ledger(&[2]).count(Kind::Ack) > 0)
    })
    .with_context(|| controlled.logs())?;
    let output = waiting.wait()?;
    ensure!(output.ok(), "the writer saw an error: {output:?}");
    let ledger = pair.cluster.ledger(&[1, 2]);
    check(&ledger, two.disk("data")?, Durability::Acked)?.require_ok()?;
    say("the other server took over: 0 acknowledged writes lost");
    controlled.boot_again(one)?;
    pair.wait_answer(one)?;
    pair.wait_in_sync()?;
    say("the first server is back: lockstepd alone was started there");
    Ok(())
}
