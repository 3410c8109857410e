//! What a keeper knew, and what it waits for.

use std::time::Duration;

use controlplane_api::why::Input;
use controlplane_core::failure_detector::Presence;
use controlplane_core::keeper::why::{Hold, Inputs};
use controlplane_core::keeper::{ArbiterKind, Automatic, Desire, Side};
use controlplane_core::partition::{Missing, Service, Standing, Targets};
use controlplane_core::self_fencing::Leases;
use controlplane_core::view_change::Told;
use mirror_core::types::Instant;

use super::input;

/// How things are called here.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// This node.
    pub node: &'a str,
    /// The other one.
    pub peer: &'a str,
    /// The group.
    pub group: &'a str,
    /// `witness`, `etcd`, `ping`, `manual` or `none`.
    pub arbiter: &'a str,
    /// Whether ping targets in the clients' networks are configured.
    pub clients: bool,
}

/// A time that is read: `0.4 s`, `12 s`, `3 min`, `2 h`.
pub fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 => format!("{seconds}.{} s", time.subsec_millis() / 100),
        10..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Everything that a situation was made of.
pub(super) fn inputs(seen: &Inputs, names: &Names<'_>) -> Vec<Input> {
    let mut all = vec![peer(seen, names), link(seen, names), arbiter(seen, names)];
    if names.clients {
        let (value, text) = match seen.clients.0 {
            Targets::Answer => ("answer", "a ping target in the clients' networks answers"),
            Targets::Silent => ("silent", "no ping target in the clients' networks answers"),
        };
        let text = format!("{text}{}", since(seen, seen.clients.1));
        all.push(input("clients", value, text));
    }
    if seen.kind.leases() == Leases::Kept || seen.service == Service::Expired {
        all.push(lease(seen));
    }
    all.push(wish(seen, names));
    if let (Standing::Unserved, Some(idle)) = (seen.standing, seen.idle_since) {
        let time = span(seen.at.since(idle));
        let (value, who) = match seen.begins_first {
            Some(true) => ("own", names.node),
            Some(false) | None => ("other", names.peer),
        };
        let text = format!("nobody serves while both are linked, for {time}; {who} begins first");
        all.push(input("turn", value, text));
    }
    if seen.automatic == Automatic::No {
        let text = "the group does not start by itself";
        all.push(input("automatic", false, text));
    }
    if seen.unknown > 0 {
        let unknown = seen.unknown;
        let text =
            format!("{unknown} of its volumes never told who they are, since lockstepd began");
        all.push(input("unknown-volumes", unknown, text));
    }
    all
}

fn since(seen: &Inputs, at: Option<Instant>) -> String {
    at.map_or_else(String::new, |at| {
        format!(", for {}", span(seen.at.since(at)))
    })
}

fn peer(seen: &Inputs, names: &Names<'_>) -> Input {
    let (peer, time) = (names.peer, span(seen.at.since(seen.peer_since)));
    let (value, text) = match seen.peer {
        Presence::Unknown => ("unknown", format!("{peer} was not heard yet, for {time}")),
        Presence::Alive if seen.lately.is_none() => (
            "alive",
            format!("{peer} is silent, and does not count as dead so far: timeouts are raised"),
        ),
        Presence::Alive => ("alive", format!("{peer} is heard, for {time}")),
        Presence::Deaf => (
            "deaf",
            format!(
                "{peer} is heard and does not hear {}, for {time}",
                names.node
            ),
        ),
        Presence::Dead => (
            "dead",
            format!("{peer} counts as dead, for {time}: silent on every path"),
        ),
    };
    input("peer", value, text)
}

fn link(seen: &Inputs, names: &Names<'_>) -> Input {
    let peer = names.peer;
    match seen.unlinked_since {
        None => {
            let text = if seen.unknown > 0 {
                format!("no volume that is known here needs {peer} without being linked with it")
            } else {
                format!("every volume that needs {peer} is linked with it")
            };
            input("mirror-link", "linked", text)
        }
        Some(at) => {
            let time = span(seen.at.since(at));
            let text = format!(
                "a volume that needs {peer} is not linked with it, or does not say, for {time}"
            );
            input("mirror-link", "not-linked", text)
        }
    }
}

fn arbiter(seen: &Inputs, names: &Names<'_>) -> Input {
    let name = names.arbiter;
    match seen.kind {
        ArbiterKind::Register => {
            let asked = since(seen, seen.asked.at);
            let text = match (seen.asked.at, seen.asked.answered) {
                (None, _) => format!("{name}: nothing was claimed in this run"),
                (Some(_), None) => format!("{name}: asked, without an answer{asked}"),
                (Some(_), Some((at, told))) => {
                    let ago = span(seen.at.since(at));
                    match told {
                        Told::Granted => format!("{name}: granted it, {ago} before"),
                        Told::Refused(refusal) => {
                            format!("{name}: refused it, {ago} before: {refusal}")
                        }
                    }
                }
            };
            let text = format!("{text}; the claim is {}", seen.claim);
            input("arbiter", seen.claim, text)
        }
        ArbiterKind::Ping => {
            let (targets, at) = seen.arbiter_targets;
            let time = since(seen, at);
            match targets {
                _ if seen.cut_off => {
                    let peer = names.peer;
                    let text = format!(
                        "ping: no target answered while {peer} was silent; that counts until {peer} is heard"
                    );
                    input("arbiter", "cut-off", text)
                }
                Targets::Answer => {
                    input("arbiter", "answer", format!("ping: a target answers{time}"))
                }
                Targets::Silent => input(
                    "arbiter",
                    "silent",
                    format!("ping: no target answers{time}"),
                ),
            }
        }
        ArbiterKind::Manual => input("arbiter", "manual", "manual: an operator decides"),
        ArbiterKind::Nobody => input("arbiter", "none", "none: nobody is asked"),
    }
}

fn lease(seen: &Inputs) -> Input {
    let text = if seen.lease_until > seen.at {
        let left = span(seen.lease_until.since(seen.at));
        format!("the time of the services lasts {left} more, if nobody is heard meanwhile")
    } else if seen.lease_until == Instant::default() || seen.service == Service::Leased {
        "the time of the services is over, and something else keeps them".to_string()
    } else {
        let over = span(seen.at.since(seen.lease_until));
        format!("the time of the services is over, for {over}")
    };
    let value = match seen.service {
        Service::Leased => "lasts",
        Service::Expired => "over",
    };
    input("lease", value, text)
}

fn wish(seen: &Inputs, names: &Names<'_>) -> Input {
    let Names { node, peer, .. } = names;
    let wished = &seen.wished;
    let (value, mut text) = match wished.desire {
        Desire::Runs(_) => ("runs", "the group runs".to_string()),
        Desire::Stopped => ("stopped", "the group is stopped".to_string()),
        Desire::Moves(Side::Own) => ("moves", format!("the group moves to {node}")),
        Desire::Moves(Side::Other) => {
            let ready = if seen.other_ready { "is" } else { "is not" };
            (
                "moves",
                format!("the group moves to {peer}, which {ready} ready"),
            )
        }
    };
    for (suspended, name) in [(wished.suspended, node), (wished.other_suspended, peer)] {
        if suspended {
            text += &format!("; {name} is suspended");
        }
    }
    if wished.mark.is_some() {
        text += if wished.agreed {
            "; both nodes know that"
        } else {
            "; the other node is not known to know that"
        };
    }
    input("wish", value, text)
}

/// What is waited for by whoever has just asked.
pub(super) fn missing_of_claim() -> Missing {
    Missing::Arbiter
}

/// What ends a wait.
pub(super) fn ends(missing: Missing, seen: &Inputs, names: &Names<'_>) -> String {
    let Names {
        node, peer, group, ..
    } = names;
    let takeover = "`lockstep volume takeover` by somebody who knows";
    match missing {
        Missing::DataPlane => {
            "the daemon of each volume answers; `lockstep volume status` says which one does not"
                .to_string()
        }
        Missing::CurrentCopy => format!("{peer} is linked, and what {node} lacks is copied"),
        Missing::Time => match seen.peer {
            Presence::Dead => format!("{peer} stays silent until {node} may ask; or it is heard"),
            Presence::Alive | Presence::Deaf if seen.lately.is_none() => {
                format!("{peer} is heard again, or is silent for as long as timeouts are raised")
            }
            Presence::Alive | Presence::Deaf => {
                format!(
                    "the mirror link comes back in this time, or counts as lost then; or {peer} falls silent"
                )
            }
            Presence::Unknown => {
                format!(
                    "{peer} is heard, or was silent for the heartbeat's timeout since lockstepd began, or since {node} stood still"
                )
            }
        },
        Missing::Link => format!(
            "the mirror link to {peer} comes back; or {peer} falls silent on every path, and the arbiter decides"
        ),
        Missing::Arbiter => {
            let over = match seen.standing {
                Standing::Frozen => "; or the time of the services is over, and it steps down",
                Standing::Serving
                | Standing::Standby
                | Standing::Unserved
                | Standing::Booted
                | Standing::Alone
                | Standing::NotCurrent
                | Standing::Silent
                | Standing::Broken => "",
            };
            format!("{} answers; or {peer} is linked again{over}", names.arbiter)
        }
        Missing::Peer => format!("{peer} is linked again, or what it holds changes"),
        Missing::PeerOrOperator => {
            format!("{peer} is linked; or {takeover} that {peer} is off")
        }
        Missing::Turn if seen.begins_first.is_some() => {
            format!("{peer} begins; or this time is over, and {node} begins")
        }
        Missing::Turn => format!("{peer} begins; or the move comes to nothing, and {node} begins"),
        Missing::Clients => {
            "a ping target in the clients' networks answers, or `lockstep volume takeover`"
                .to_string()
        }
        Missing::Reach => format!("{peer} is heard; or {takeover} that {peer} is off"),
        Missing::Operator => format!("{peer} is linked again; or {takeover} that {peer} is off"),
        Missing::GroupStart => format!("`lockstep group start {group}`"),
        Missing::NodeResume => format!("`lockstep node resume {node}`"),
    }
}

/// What keeps what is decided from being done, what ends that, and when at the latest.
pub(super) fn hold(hold: Hold, names: &Names<'_>) -> (String, String, Option<Instant>) {
    let peer = names.peer;
    match hold {
        Hold::EarlierWords(until) => (
            "words that an earlier run of lockstepd may have said".to_string(),
            "their time is over, and every volume was asked since".to_string(),
            Some(until),
        ),
        Hold::Busy => (
            "the daemon of a volume".to_string(),
            "it has carried out what it was told, or its view has changed".to_string(),
            None,
        ),
        Hold::Refused(until) => (
            "the next try: the daemon of a volume refused, or was told a moment ago".to_string(),
            "it is told again; `lockstep events --code LS6018` and the lines after it say why it refused".to_string(),
            Some(until),
        ),
        Hold::Resources => (
            "the group's resources".to_string(),
            "all of them are stopped".to_string(),
            None,
        ),
        Hold::Untold => (
            format!("{peer}, which does not know yet what is wished, and would begin with the volumes"),
            format!("{peer} knows it, or its copies do not count"),
            None,
        ),
    }
}
