//! What a node does about a volume when its peer or the mirror link is lost: a pure table.
//!
//! The rows are looked at in their order, the first that fits rules. docs/controlplane.md prints them; every row is a
//! test. No row lets two nodes serve: whoever decides alone has a grant that the other cannot get
//! ([`crate::register`]), except under `ping` and `none`, which promise less and say so.

use core::fmt;

mod words;

/// How this node's copy of the volume stands, by its data plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Serves the volume, and writes go through.
    Serving,
    /// Serves it, and writes wait: the peer's copy counts and the peer does not answer (S2).
    Frozen,
    /// Does not serve it; the peer does, by the view that this copy holds. Both copies count.
    Standby,
    /// Both copies count, and the peer does not serve, by the view; nor does this node.
    Unserved,
    /// Both copies count, and this machine booted since: what was not flushed here only the peer has, if it runs (S11).
    Booted,
    /// Does not serve it, and this copy alone counts.
    Alone,
    /// This copy does not hold everything.
    NotCurrent,
    /// The data plane does not answer.
    Silent,
    /// Serves it by name alone: the disk or the metadata here failed, nobody carries the service, and every request fails.
    Broken,
}

/// How the peer is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contact {
    /// The mirror link is up.
    Linked,
    /// Only heartbeats come, and the link has had its time to come back.
    HeartbeatsOnly,
    /// Something is missing, but not for long enough, or this node stood still itself.
    Unsure,
    /// Silent on every path for the timeout.
    Dead,
}

/// Who decides when the nodes cannot agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arbiter {
    /// A register, witness or etcd, and how a claim stands there.
    Register(ClaimState),
    /// Ping targets: whether one of them answers.
    Ping(Targets),
    /// An operator: the serving side goes on, the other one waits for a word.
    Manual,
    /// Nobody: every node for itself. For tests.
    Nobody,
}

/// How a claim stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimState {
    /// Nothing was asked.
    Idle,
    /// Asked; the arbiter has not answered.
    Asked,
    /// This node may go on alone.
    Granted,
    /// Another node may, or did.
    Refused,
}

/// Ping targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Targets {
    /// One answers.
    Answer,
    /// None does.
    Silent,
}

/// Whether this node's time for its services lasts ([`crate::lease`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// They may run.
    Leased,
    /// Their time is over.
    Expired,
}

/// Who begins with what nobody serves while both nodes are linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// This node.
    Ours,
    /// The other one; this node later, if it does not.
    Theirs,
}

/// What operators wish of the group ([`crate::wish`]), for this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It runs; where, the rest decides.
    Runs,
    /// It runs, and shall run on the other node, which is ready for it.
    There,
    /// It runs nowhere.
    Nowhere,
    /// It runs, and this node takes nothing over.
    NotHere,
}

/// All that the decision rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Situation {
    /// This node's copy.
    pub standing: Standing,
    /// The peer.
    pub contact: Contact,
    /// The arbiter.
    pub arbiter: Arbiter,
    /// Ping targets without which no takeover begins; `Answer` if none are configured.
    pub clients: Targets,
    /// Whether the volume's group shall run without an operator's word.
    pub automatic: bool,
    /// The time for services.
    pub service: Service,
    /// Who begins.
    pub turn: Turn,
    /// What operators wish.
    pub wanted: Wanted,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing.
    Rest,
    /// Nothing yet; this is missing.
    Wait(Missing),
    /// Ask the arbiter.
    Claim,
    /// The serving node goes on without the peer.
    GoAlone,
    /// This node takes the volume over.
    TakeOver,
    /// Nobody serves, and this copy counts alone or the peer agrees: start.
    Start,
    /// Stop serving, hard: writes that wait fail, and the services end.
    StepDown(Cause),
    /// Stop the services, then the volumes, in good order, for the other node.
    HandOver,
    /// The same because an operator stopped the group.
    Stop,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rest => f.write_str("nothing to do"),
            Self::Wait(missing) => write!(f, "waits for {missing}"),
            Self::Claim => f.write_str("asks the arbiter"),
            Self::GoAlone => f.write_str("goes on without the peer"),
            Self::TakeOver => f.write_str("takes over"),
            Self::Start => f.write_str("starts"),
            Self::StepDown(cause) => write!(f, "steps down: {cause}"),
            Self::HandOver => f.write_str("hands over to the other node"),
            Self::Stop => f.write_str("stops"),
        }
    }
}

/// What a decision waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The data plane's answer.
    DataPlane,
    /// A copy that holds everything: the peer, or its resync.
    CurrentCopy,
    /// Time, to be sure.
    Time,
    /// The mirror link: the peer lives.
    Link,
    /// The arbiter's answer.
    Arbiter,
    /// The peer, which was granted the volume.
    Peer,
    /// The peer, or the word of an operator who knows that it is off.
    PeerOrOperator,
    /// The peer, which begins first.
    Turn,
    /// A client network: no ping target answers.
    Clients,
    /// The peer or an operator: no ping target of the arbiter answered all the time since the peer was heard.
    Reach,
    /// An operator's word.
    Operator,
    /// An operator, who stopped the group.
    GroupStart,
    /// An operator, who suspended this node.
    NodeResume,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DataPlane => "the volume's daemon",
            Self::CurrentCopy => "a copy that holds everything",
            Self::Time => "time, to be sure",
            Self::Link => "the mirror link; the peer lives",
            Self::Arbiter => "the arbiter's answer",
            Self::Peer => "the peer, which was granted the volume",
            Self::PeerOrOperator => {
                "the peer, or an operator who knows that it is off: this machine booted"
            }
            Self::Turn => "the peer, which begins first",
            Self::Clients => "a ping target that answers",
            Self::Reach => {
                "the peer, or an operator: no ping target answered all the time since the peer was heard"
            }
            Self::Operator => "an operator's word",
            Self::GroupStart => "`lockstep group start`: an operator stopped the group",
            Self::NodeResume => "`lockstep node resume`: an operator suspended this node",
        })
    }
}

/// Why a node steps down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The arbiter granted the volume to the other node.
    Superseded,
    /// Neither the peer nor the arbiter was heard for the service lease.
    LeaseOver,
    /// No ping target answers: this side is the one that is cut off.
    CutOff,
    /// The disk or the metadata failed, and the service could not go on through the peer.
    Failed,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Superseded => "the arbiter granted the volume to the other node",
            Self::LeaseOver => "neither the peer nor the arbiter was heard",
            Self::CutOff => "no ping target answers",
            Self::Failed => "the disk here failed, and the peer does not carry the service",
        })
    }
}

/// A row: what it needs, and what follows. `None` and `Any` fit everything.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The standing that it is about.
    pub standing: Standing,
    /// What else it needs.
    pub condition: Condition,
    /// What follows.
    pub decision: Decision,
}

/// What a row needs besides the standing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Any,
    /// This contact.
    Contact(Contact),
    /// The register's claim stands so.
    Claim(ClaimState),
    /// The ping targets of the arbiter `ping`.
    Ping(Targets),
    /// The arbiter is an operator.
    Manual,
    /// There is no arbiter.
    Nobody,
    /// The service lease is over.
    LeaseOver,
    /// No client network.
    NoClients,
    /// The group waits for an operator anyway.
    NotAutomatic,
    /// The mirror link is up, and it is this node's turn.
    LinkedInTurn,
    /// Operators wish this.
    Wish(Wanted),
    /// The mirror link is up, and operators wish this.
    LinkedWish(Wanted),
}

impl Condition {
    fn holds(self, situation: &Situation) -> bool {
        match self {
            Self::Any => true,
            Self::Contact(contact) => situation.contact == contact,
            Self::Claim(state) => situation.arbiter == Arbiter::Register(state),
            Self::Ping(targets) => situation.arbiter == Arbiter::Ping(targets),
            Self::Manual => situation.arbiter == Arbiter::Manual,
            Self::Nobody => situation.arbiter == Arbiter::Nobody,
            Self::LeaseOver => situation.service == Service::Expired,
            Self::NoClients => situation.clients == Targets::Silent,
            Self::NotAutomatic => !situation.automatic,
            Self::LinkedInTurn => {
                situation.contact == Contact::Linked && situation.turn == Turn::Ours
            }
            Self::Wish(wanted) => situation.wanted == wanted,
            Self::LinkedWish(wanted) => {
                situation.contact == Contact::Linked && situation.wanted == wanted
            }
        }
    }
}

const fn row(standing: Standing, condition: Condition, decision: Decision) -> Row {
    Row {
        standing,
        condition,
        decision,
    }
}

/// The table.
pub const TABLE: [Row; 56] = {
    use Cause::{CutOff, Failed, LeaseOver as Over, Superseded};
    use ClaimState::{Asked, Granted, Idle, Refused};
    use Condition::{
        Any, Claim, Contact as With, LeaseOver, LinkedInTurn, LinkedWish, Manual, NoClients,
        Nobody, NotAutomatic, Ping, Wish,
    };
    use Contact::{HeartbeatsOnly, Linked, Unsure};
    use Decision::{GoAlone, HandOver, Rest, Start, StepDown, Stop, TakeOver, Wait};
    use Standing::{Alone, Booted, Broken, Frozen, NotCurrent, Serving, Silent, Standby, Unserved};
    use Wanted::{NotHere, Nowhere, There};
    [
        row(Serving, Wish(There), HandOver),
        row(Serving, Wish(Nowhere), Stop),
        row(Serving, Any, Rest),
        row(Silent, Any, Wait(Missing::DataPlane)),
        row(NotCurrent, Any, Wait(Missing::CurrentCopy)),
        row(Booted, Any, Wait(Missing::PeerOrOperator)),
        // Serving, and the peer is lost.
        row(Frozen, With(Linked), Rest),
        row(Frozen, Claim(Granted), GoAlone),
        row(Frozen, Claim(Refused), StepDown(Superseded)),
        row(Frozen, LeaseOver, StepDown(Over)),
        row(Frozen, With(Unsure), Wait(Missing::Time)),
        row(Frozen, Claim(Idle), Decision::Claim),
        row(Frozen, Claim(Asked), Wait(Missing::Arbiter)),
        row(Frozen, Ping(Targets::Answer), GoAlone),
        row(Frozen, Ping(Targets::Silent), StepDown(CutOff)),
        row(Frozen, Manual, GoAlone),
        row(Frozen, Nobody, GoAlone),
        // In sync with the peer, which is lost.
        row(Standby, With(Linked), Rest),
        row(Standby, NotAutomatic, Wait(Missing::Operator)),
        row(Standby, Claim(Granted), TakeOver),
        row(Standby, Claim(Refused), Wait(Missing::Peer)),
        row(Standby, Wish(Nowhere), Wait(Missing::GroupStart)),
        row(Standby, Wish(NotHere), Wait(Missing::NodeResume)),
        row(Standby, With(Unsure), Wait(Missing::Time)),
        row(Standby, With(HeartbeatsOnly), Wait(Missing::Link)),
        row(Standby, NoClients, Wait(Missing::Clients)),
        row(Standby, Claim(Idle), Decision::Claim),
        row(Standby, Claim(Asked), Wait(Missing::Arbiter)),
        row(Standby, Manual, Wait(Missing::Operator)),
        row(Standby, Ping(Targets::Silent), Wait(Missing::Reach)),
        row(Standby, Ping(Targets::Answer), TakeOver),
        row(Standby, Nobody, TakeOver),
        // In sync, and nobody serves: whose turn it is begins; where the peer is lost it is as on a standby.
        row(Unserved, NotAutomatic, Wait(Missing::Operator)),
        row(Unserved, LinkedWish(Nowhere), Wait(Missing::GroupStart)),
        row(Unserved, LinkedWish(NotHere), Wait(Missing::NodeResume)),
        row(Unserved, LinkedInTurn, Start),
        row(Unserved, With(Linked), Wait(Missing::Turn)),
        row(Unserved, Claim(Granted), TakeOver),
        row(Unserved, Claim(Refused), Wait(Missing::Peer)),
        row(Unserved, Wish(Nowhere), Wait(Missing::GroupStart)),
        row(Unserved, Wish(NotHere), Wait(Missing::NodeResume)),
        row(Unserved, With(Unsure), Wait(Missing::Time)),
        row(Unserved, With(HeartbeatsOnly), Wait(Missing::Link)),
        row(Unserved, NoClients, Wait(Missing::Clients)),
        row(Unserved, Claim(Idle), Decision::Claim),
        row(Unserved, Claim(Asked), Wait(Missing::Arbiter)),
        row(Unserved, Manual, Wait(Missing::Operator)),
        row(Unserved, Ping(Targets::Silent), Wait(Missing::Reach)),
        row(Unserved, Ping(Targets::Answer), TakeOver),
        row(Unserved, Nobody, TakeOver),
        // Nobody serves, and nobody else may.
        row(Alone, NotAutomatic, Wait(Missing::Operator)),
        row(Alone, Wish(Nowhere), Wait(Missing::GroupStart)),
        row(Alone, Wish(NotHere), Wait(Missing::NodeResume)),
        row(Alone, NoClients, Wait(Missing::Clients)),
        row(Alone, Any, Start),
        // Nothing is served here any more; perhaps the peer does.
        row(Broken, Any, StepDown(Failed)),
    ]
};

/// The decision, and the row that made it (for `why`).
pub fn decide(situation: &Situation) -> (usize, Decision) {
    let fits = |row: &Row| row.standing == situation.standing && row.condition.holds(situation);
    let found = TABLE.iter().position(fits);
    found.map_or((TABLE.len(), Decision::Rest), |index| {
        (index, TABLE[index].decision)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    const STANDINGS: [Standing; 9] = [
        Standing::Broken,
        Standing::Booted,
        Standing::Unserved,
        Standing::Serving,
        Standing::Frozen,
        Standing::Standby,
        Standing::Alone,
        Standing::NotCurrent,
        Standing::Silent,
    ];
    const CONTACTS: [Contact; 4] = [
        Contact::Linked,
        Contact::HeartbeatsOnly,
        Contact::Unsure,
        Contact::Dead,
    ];
    const ARBITERS: [Arbiter; 8] = [
        Arbiter::Register(ClaimState::Idle),
        Arbiter::Register(ClaimState::Asked),
        Arbiter::Register(ClaimState::Granted),
        Arbiter::Register(ClaimState::Refused),
        Arbiter::Ping(Targets::Answer),
        Arbiter::Ping(Targets::Silent),
        Arbiter::Manual,
        Arbiter::Nobody,
    ];

    const WISHES: [Wanted; 4] = [
        Wanted::Runs,
        Wanted::There,
        Wanted::Nowhere,
        Wanted::NotHere,
    ];

    fn all() -> Vec<Situation> {
        let mut situations = Vec::new();
        for standing in STANDINGS {
            for contact in CONTACTS {
                for arbiter in ARBITERS {
                    for bits in 0..64 {
                        situations.push(Situation {
                            wanted: WISHES[bits >> 4],
                            standing,
                            contact,
                            arbiter,
                            clients: if bits & 1 == 0 {
                                Targets::Answer
                            } else {
                                Targets::Silent
                            },
                            automatic: bits & 2 == 0,
                            service: if bits & 4 == 0 {
                                Service::Leased
                            } else {
                                Service::Expired
                            },
                            turn: if bits & 8 == 0 {
                                Turn::Ours
                            } else {
                                Turn::Theirs
                            },
                        });
                    }
                }
            }
        }
        situations
    }

    #[test]
    fn every_situation_has_a_row_and_every_row_a_situation() {
        let mut used = [false; TABLE.len()];
        for situation in all() {
            let (row, _) = decide(&situation);
            assert!(row < TABLE.len(), "no row for {situation:?}");
            used[row] = true;
        }
        let unused: Vec<usize> = (0..TABLE.len()).filter(|row| !used[*row]).collect();
        assert_eq!(unused, Vec::<usize>::new());
    }

    #[test]
    fn with_a_register_nobody_decides_alone_without_a_grant() {
        for situation in all() {
            let (row, decision) = decide(&situation);
            let alone = matches!(decision, Decision::GoAlone | Decision::TakeOver);
            if let (Arbiter::Register(state), true) = (situation.arbiter, alone) {
                assert_eq!(state, ClaimState::Granted, "row {row}: {situation:?}");
            }
        }
    }

    #[test]
    fn while_the_link_is_up_nobody_decides_alone() {
        for situation in all() {
            let linked = situation.contact == Contact::Linked;
            let both = matches!(situation.standing, Standing::Frozen | Standing::Standby);
            if linked && both {
                assert_eq!(decide(&situation).1, Decision::Rest, "{situation:?}");
            }
            if linked && situation.standing == Standing::Unserved {
                let agreed = matches!(decide(&situation).1, Decision::Start | Decision::Wait(_));
                assert!(agreed, "{situation:?}");
            }
        }
    }

    #[test]
    fn a_standby_never_takes_over_from_a_peer_that_lives() {
        for situation in all() {
            let (row, decision) = decide(&situation);
            let granted = situation.arbiter == Arbiter::Register(ClaimState::Granted);
            let current = matches!(situation.standing, Standing::Standby | Standing::Unserved);
            if current && !granted {
                let begins = matches!(decision, Decision::Claim | Decision::TakeOver);
                assert!(
                    !begins || situation.contact == Contact::Dead,
                    "row {row}: {situation:?}"
                );
            }
        }
    }

    #[test]
    fn without_an_operator_a_manual_arbiter_never_moves_the_volume() {
        for situation in all() {
            if situation.arbiter == Arbiter::Manual {
                assert_ne!(decide(&situation).1, Decision::TakeOver);
            }
        }
    }

    #[test]
    fn a_lease_that_is_over_ends_what_waits() {
        for situation in all() {
            let over = situation.service == Service::Expired;
            let waits = situation.standing == Standing::Frozen
                && situation.contact != Contact::Linked
                && situation.arbiter != Arbiter::Register(ClaimState::Granted);
            if over && waits {
                assert!(matches!(decide(&situation).1, Decision::StepDown(_)));
            }
        }
    }

    /// A wish never lets a node decide what it would not decide without: it waits, or gives away what it has.
    #[test]
    fn a_wish_lets_nobody_decide_alone() {
        for situation in all() {
            let without = Situation {
                wanted: Wanted::Runs,
                ..situation
            };
            let (row, with) = decide(&situation);
            let (_, without) = decide(&without);
            let waits = matches!(with, Decision::Wait(_));
            let gives = matches!(with, Decision::HandOver | Decision::Stop)
                && situation.standing == Standing::Serving;
            assert!(
                with == without || waits || gives,
                "row {row}: {situation:?}"
            );
        }
    }

    #[test]
    fn what_is_stopped_and_who_is_suspended_begins_and_asks_for_nothing() {
        for situation in all() {
            let serves = matches!(
                situation.standing,
                Standing::Serving | Standing::Frozen | Standing::Broken
            );
            let granted = situation.arbiter == Arbiter::Register(ClaimState::Granted);
            let wished = matches!(situation.wanted, Wanted::Nowhere | Wanted::NotHere);
            if wished && !serves && !granted {
                let rests = matches!(decide(&situation).1, Decision::Wait(_) | Decision::Rest);
                assert!(rests, "{situation:?}");
            }
        }
    }

    #[test]
    fn who_is_suspended_goes_on_with_what_it_serves() {
        for situation in all() {
            let serves = matches!(situation.standing, Standing::Serving | Standing::Frozen);
            if serves && situation.wanted == Wanted::NotHere {
                let without = Situation {
                    wanted: Wanted::Runs,
                    ..situation
                };
                assert_eq!(decide(&situation), decide(&without));
            }
        }
    }
}
