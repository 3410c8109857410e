//! The operators: commands at any time, and the manual arbiter's word.

use mirror_core::admin::{Command, CopyState, Done, LinkState, Refusal, Role, Status};

use super::node::{MS, Node, id, name};
use super::world::{Happening, World};

/// A takeover that an operator is busy with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    node: usize,
    /// The peer is not off, only unreachable.
    lie: bool,
    command: Option<u64>,
    /// Gives up then.
    until: u64,
}

impl Case {
    /// Whether this node was told to take over.
    pub(super) fn is_told(&self, node: usize) -> bool {
        self.node == node && self.command.is_some()
    }
}

/// What the operators are busy with.
#[derive(Debug, Default)]
pub(super) struct Desk {
    /// The one takeover at a time.
    pub case: Option<Case>,
    /// An operator said something wrong: both sides may have gone alone.
    pub split_expected: bool,
    /// Keeps the volume served.
    pub caring: bool,
    running: bool,
}

impl World {
    /// Starts the operators.
    pub(super) fn open_the_desk(&mut self) {
        self.desk.caring = true;
        if !self.desk.running {
            self.desk.running = true;
            self.at(100 * MS, Happening::Desk);
        }
    }

    /// An operator will say something wrong, and both nodes may go alone.
    pub fn expect_split_brain(&mut self) {
        self.desk.split_expected = true;
    }

    /// The status on a node without the operations, if its daemon runs and is not paused.
    pub fn status(&self, node: usize) -> Option<Status> {
        let place = &self.nodes[node];
        if place.paused_until > self.now {
            return None;
        }
        Some(
            place
                .process
                .as_ref()?
                .volume
                .standing(place.clock(self.now)),
        )
    }

    /// The role on a node.
    pub fn role(&self, node: usize) -> Option<Role> {
        let place = &self.nodes[node];
        if place.paused_until > self.now {
            return None;
        }
        Some(place.process.as_ref()?.volume.role())
    }

    /// The node that serves.
    pub fn active(&self) -> Option<usize> {
        (0..2).find(|node| self.role(*node) == Some(Role::Active))
    }

    /// Whether everything is as it should be.
    pub fn healthy(&self) -> bool {
        if self.nodes[0].view() != self.nodes[1].view()
            || self.nodes[0].view().insync.len() < 2
            || self.active().is_none()
        {
            return false;
        }
        let up = (0..2).all(|node| {
            self.status(node).is_some_and(|status| {
                status.link.state == LinkState::Up
                    && status.view.insync.len() == 2
                    && status.copy == CopyState::InSync
                    && status.frozen.is_none()
            })
        });
        let answers = |node: &Node| node.data.stuck_until <= self.now;
        up && self.sizes_agree() && self.nodes.iter().all(answers)
    }

    pub(super) fn work_the_desk(&mut self) {
        self.at(100 * MS / self.plan.haste, Happening::Desk);
        self.work_the_case();
        self.spot_calm();
        if !self.chaos && self.desk.caring && self.rng.percent(20) {
            self.attach_isolated(true);
        }
        if self.desk.caring && self.desk.case.is_none() && self.rng.percent(10) {
            self.care();
        }
    }

    /// Keeps the volume served and the application running.
    fn care(&mut self) {
        if let Some(node) = self.active() {
            let idle = self.nodes[node]
                .device
                .as_ref()
                .is_some_and(|device| !device.used && !device.stopping);
            if idle {
                self.start_application(node);
            }
            return;
        }
        let node = self.rng.index(2);
        if self.is_the_only_hope(node) {
            self.begin_takeover(node, false);
        } else if self.plan.control && self.role(node) == Some(Role::Fenced) {
            self.activate_if_linked(node);
        } else if self.role(node) == Some(Role::Fenced) {
            self.command(node, Command::Activate);
        } else if self.role(node) == Some(Role::Deactivating) {
            self.command(node, Command::Deactivate { force: true });
        }
    }

    /// What the operator can know of the other node before giving the word: it has not gone alone.
    fn peer_still_counts(&self, node: usize) -> bool {
        let superblock = self.nodes[1 - node].meta.peek();
        // Nor was it told that the disk here failed, unless its own had failed before, as the logs say: then what was
        // acknowledged last is here, and nowhere else (docs/operations.md).
        let left_last = superblock.failed && self.has_failed_last(node);
        let told = superblock.peer_failed && !left_last;
        let quiet = self.nodes[1 - node].meta.is_idle() && !told && !self.has_old_disks(node);
        quiet && (superblock.volume_id.is_none() || superblock.view.insync.contains(id(node)))
    }

    /// Begins a takeover on `node`; the peer is switched off first.
    pub fn begin_takeover(&mut self, node: usize, lie: bool) {
        if self.desk.case.is_some() || !self.nodes[node].power || self.nodes[node].process.is_none()
        {
            return;
        }
        if self.plan.arbiter || self.plan.control {
            return self.outage(node, lie);
        }
        if lie {
            self.silence([true, true]);
        } else {
            self.nodes[1 - node].held_off = true;
            self.power_cut(1 - node);
        }
        self.count(if lie {
            "takeovers on a wrong word"
        } else {
            "takeovers wanted"
        });
        self.desk.case = Some(Case {
            node,
            lie,
            command: None,
            until: self.now + 30_000 * MS / self.plan.haste,
        });
    }

    fn work_the_case(&mut self) {
        let Some(mut case) = self.desk.case else {
            return;
        };
        let answer = case
            .command
            .and_then(|command| self.answers.get(&command).cloned());
        let gone = self.nodes[case.node].process.is_none();
        let again = matches!(answer, Some(Err(Refusal::Busy | Refusal::LinkUp { .. })));
        if again {
            case.command = None;
        }
        let over = self.now > case.until
            || (gone && case.command.is_some())
            || (answer.is_some() && !again);
        if over {
            if matches!(answer, Some(Ok(Done::Active | Done::Alone))) {
                self.count(if case.lie {
                    "takeover on a wrong word done"
                } else {
                    "takeover done"
                });
            }
            self.end_case(case);
            return;
        }
        let unreachable = self.status(case.node).is_some_and(|status| {
            matches!(status.link.state, LinkState::Down | LinkState::Refused)
        });
        if case.command.is_none() && unreachable {
            if !self.peer_still_counts(case.node) {
                self.end_case(case);
                return;
            }
            let confirm = format!("{} is off", name(1 - case.node));
            // Whoever is called off is called gone with everything that it had not flushed.
            self.model.power_cut(1 - case.node);
            case.command = Some(self.command(case.node, Command::Takeover { confirm }));
        }
        self.desk.case = Some(case);
    }

    fn end_case(&mut self, case: Case) {
        self.desk.case = None;
        if case.lie {
            self.at(
                500 * MS / self.plan.haste,
                Happening::Heal {
                    silent: [false, false],
                },
            );
        } else {
            self.nodes[1 - case.node].held_off = false;
            let after = self.micros(10_000, 5_000_000) / self.plan.haste;
            self.at(
                after,
                Happening::PowerOn {
                    node: 1 - case.node,
                },
            );
        }
    }
}
