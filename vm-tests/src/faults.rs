//! Faults of a machine as a whole and of its network cards.

use std::time::Duration;

use serde_json::json;

use crate::machine::Machine;
use crate::network::Net;

impl Machine {
    /// Stands still, as when the hypervisor takes the CPU away: no packet, no answer, clocks stop.
    ///
    /// # Errors
    /// If it is off.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.qmp()?.command("stop", &json!({})).map(drop)
    }

    /// Goes on after [`Machine::pause`].
    ///
    /// # Errors
    /// If it is off.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.qmp()?.command("cont", &json!({})).map(drop)
    }

    /// Unplugs a network card: the machine sees that the carrier is gone.
    ///
    /// # Errors
    /// If it is off.
    pub fn link_down(&self, net: Net) -> anyhow::Result<()> {
        self.set_link(net, false)
    }

    /// Plugs it in again.
    ///
    /// # Errors
    /// If it is off.
    pub fn link_up(&self, net: Net) -> anyhow::Result<()> {
        self.set_link(net, true)
    }

    fn set_link(&self, net: Net, up: bool) -> anyhow::Result<()> {
        let arguments = json!({ "name": format!("card-{}", net.card()), "up": up });
        self.qmp()?.command("set_link", &arguments).map(drop)
    }

    /// Everything that arrives from `other` on a network is lost, silently; the other way stays.
    /// It lasts until [`Machine::hear`] or a reboot of this machine.
    ///
    /// # Errors
    /// If the rule cannot be set.
    pub fn ignore(&self, other: &Machine, net: Net) -> anyhow::Result<()> {
        let (card, mac) = (net.card(), net.mac(other.hardware.number));
        self.exec_ok(&format!(
            "nft 'table netdev lockstep_{card} {{ chain lost {{ type filter hook ingress device {card} priority 0; \
             ether saddr {mac} drop; }}; }}'"
        ))
        .map(drop)
    }

    /// Ends every [`Machine::ignore`] on a network.
    ///
    /// # Errors
    /// If there was none.
    pub fn hear(&self, net: Net) -> anyhow::Result<()> {
        self.exec_ok(&format!("nft delete table netdev lockstep_{}", net.card()))
            .map(drop)
    }

    /// What this machine sends on a network takes longer (do it on both sides for a round trip of twice that).
    ///
    /// # Errors
    /// If the machine refuses.
    pub fn delay(&self, net: Net, delay: Duration) -> anyhow::Result<()> {
        let card = net.card();
        let milliseconds = delay.as_millis();
        let script = if milliseconds == 0 {
            format!("tc qdisc del dev {card} root")
        } else {
            format!(
                "modprobe sch_netem && tc qdisc replace dev {card} root netem delay {milliseconds}ms limit 10000"
            )
        };
        self.exec_ok(&script).map(drop)
    }
}
