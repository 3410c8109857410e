//! What an operator asks for, judged by what this node sees: refused with a reason, so already, or a wish.

use controlplane_api::verbs::{GroupVerb, NodeVerb};
use controlplane_core::wish::{GroupKey, Origin, Subject, Want};
use mirror_core::admin::{LinkState, Problem, Role, Status};
use mirror_core::types::NodeId;

use super::Node;

/// What comes of a verb.
pub(super) enum Judged {
    /// It is so already, or will be: what is wished of this last says so.
    Already(Subject, String),
    /// This is wished.
    Wish(Subject, Want, String),
}

pub(super) fn refused(
    code: &str,
    message: impl Into<String>,
    advice: impl Into<String>,
) -> Problem {
    Problem {
        code: code.to_string(),
        message: message.into(),
        advice: advice.into(),
    }
}

impl Node {
    fn node_named(&self, name: &str) -> Result<NodeId, Problem> {
        match name {
            own if own == self.config.name => Ok(self.config.me),
            peer if peer == self.config.peer_name => Ok(self.config.peer),
            _ => Err(refused(
                "LS6080",
                format!("there is no node {name} in this cluster"),
                format!("say {} or {}", self.config.name, self.config.peer_name),
            )),
        }
    }

    pub(super) fn node_verb(&self, name: &str, verb: NodeVerb) -> Result<Judged, Problem> {
        let node = self.node_named(name)?;
        let want = match verb {
            NodeVerb::Suspend => Want::Suspended,
            NodeVerb::Resume => Want::Resumed,
        };
        let newest = self.wishes.newest(Subject::Node(node));
        // Suspended with the whole cluster, and now by itself as well: `cluster resume` leaves it so.
        let newest = newest.filter(|wish| wish.want != want || wish.origin != Origin::Together);
        let now = newest.map_or(Want::Resumed, |wish| wish.want);
        let text = match (verb, now == want) {
            (NodeVerb::Suspend, true) => format!("{name} was suspended already"),
            (NodeVerb::Suspend, false) => format!(
                "{name} is suspended: it takes nothing over, and goes on with what it serves; `lockstep node resume \
                 {name}` ends that{}",
                if node == self.config.me {
                    String::new()
                } else {
                    self.untold()
                }
            ),
            (NodeVerb::Resume, true) => format!("{name} was not suspended"),
            (NodeVerb::Resume, false) => format!("{name} takes over again"),
        };
        Ok(if now == want {
            Judged::Already(Subject::Node(node), text)
        } else {
            Judged::Wish(Subject::Node(node), want, text)
        })
    }

    pub(super) fn group_verb(
        &self,
        name: &str,
        verb: GroupVerb,
        node: Option<&str>,
    ) -> Result<Judged, Problem> {
        let named = |group: &super::Group| group.name == name;
        let Some(group) = self.groups.iter().position(named) else {
            let names: Vec<&str> = self.groups.iter().map(|group| &*group.name).collect();
            return Err(refused(
                "LS6080",
                format!("there is no group {name} in this cluster"),
                format!("the groups are: {}", names.join(", ")),
            ));
        };
        let node = node.map(|node| self.node_named(node)).transpose()?;
        match verb {
            GroupVerb::Move => self.judge_move(group, node),
            GroupVerb::Stop => Ok(self.judge_stop(group)),
            GroupVerb::Start => self.judge_start(group, node),
            GroupVerb::Clear => Ok(Judged::Wish(
                Subject::Failures(GroupKey::of(name)),
                Want::Forgotten,
                format!("what failed in {name} is forgotten on both nodes"),
            )),
        }
    }

    /// What is wished of a group, durable or not.
    pub(super) fn newest(&self, group: usize) -> Want {
        let newest = self.wishes.newest(self.groups[group].subject);
        newest.map_or(Want::Runs { home: None }, |wish| wish.want)
    }

    /// The node that serves the group, as far as this one sees.
    pub(super) fn serving(&self, group: usize) -> Option<NodeId> {
        let told = || self.groups[group].told.values();
        let peer = |status: &Status| status.view.active.as_ref() == Some(&status.peer);
        if told().any(|status| status.role == Role::Active) {
            Some(self.config.me)
        } else if told().any(|status| status.link.state == LinkState::Up && peer(status)) {
            Some(self.config.peer)
        } else {
            None
        }
    }

    fn judge_move(&self, group: usize, to: Option<NodeId>) -> Result<Judged, Problem> {
        let name = self.groups[group].name.clone();
        let wanted = self.newest(group);
        if matches!(wanted, Want::Stopped { .. }) {
            return Err(refused(
                "LS6085",
                format!("{name} is stopped"),
                format!("`lockstep group start {name} --on NODE` starts it where it shall run"),
            ));
        }
        let Some(serving) = self.serving(group) else {
            if let Want::Moves { to } = wanted {
                return Err(refused(
                    "LS6083",
                    format!("{name} is on its way to {}", self.name_of(to)),
                    "wait until it has arrived, or has gone back; `lockstep status` tells",
                ));
            }
            return Err(refused(
                "LS6085",
                format!("nobody serves {name}, as far as {} sees", self.config.name),
                "`lockstep status` says what it waits for",
            ));
        };
        let other = if serving == self.config.me {
            self.config.peer
        } else {
            self.config.me
        };
        let to = to.unwrap_or(other);
        let place = self.name_of(to);
        let subject = self.groups[group].subject;
        if to == serving {
            if !matches!(wanted, Want::Moves { .. }) {
                return Ok(Judged::Already(
                    subject,
                    format!("{name} runs on {place} already"),
                ));
            }
            // It has not left.
            let home = Some(to);
            let text = format!("{name} stays on {place}");
            return Ok(Judged::Wish(subject, Want::Runs { home }, text));
        }
        self.must_take_over(to)?;
        self.must_hear_peer(group)?;
        self.must_count(group, to)?;
        let text = format!("{name} moves to {place}");
        Ok(Judged::Wish(subject, Want::Moves { to }, text))
    }

    pub(super) fn judge_stop(&self, group: usize) -> Judged {
        let name = &self.groups[group].name;
        let subject = self.groups[group].subject;
        let home = match self.newest(group) {
            // Stopped with the whole cluster, and now by itself as well: `cluster start` leaves it so.
            Want::Stopped { home } if self.wishes.is_together(subject) => home,
            Want::Stopped { .. } => {
                return Judged::Already(subject, format!("{name} was stopped already"));
            }
            Want::Runs { home } => home,
            Want::Moves { to } => Some(to),
            Want::Forgotten | Want::Failed | Want::Mended | Want::Suspended | Want::Resumed => None,
        };
        let home = self.serving(group).or(home);
        let text = format!(
            "{name} is stopped on both nodes, also after a reboot, until `lockstep group start {name}`{}",
            self.untold()
        );
        Judged::Wish(subject, Want::Stopped { home }, text)
    }

    /// What to say of a wish that the other node cannot hear now.
    pub(super) fn untold(&self) -> String {
        if self.is_peer_heard() {
            return String::new();
        }
        let peer = &self.config.peer_name;
        format!("; {peer} is not heard, and does not know it yet")
    }

    pub(super) fn judge_start(&self, group: usize, on: Option<NodeId>) -> Result<Judged, Problem> {
        let name = self.groups[group].name.clone();
        let subject = self.groups[group].subject;
        let before = if let Want::Stopped { home } = self.newest(group) {
            if let (Some(serving), Some(on)) = (self.serving(group), on)
                && serving != on
            {
                return Err(refused(
                    "LS6083",
                    format!("{name} is still being stopped on {}", self.name_of(serving)),
                    "repeat the command when it is; `lockstep status` tells",
                ));
            }
            home
        } else {
            match (self.serving(group), on) {
                (Some(serving), Some(on)) if serving != on => {
                    return Err(refused(
                        "LS6086",
                        format!("{name} runs on {}", self.name_of(serving)),
                        format!("`lockstep group move {name} --to {}`", self.name_of(on)),
                    ));
                }
                (None, Some(_)) => None,
                (Some(_), _) | (None, None) => {
                    return Ok(Judged::Already(subject, format!("{name} is not stopped")));
                }
            }
        };
        let both = [self.config.me, self.config.peer];
        if let Some(on) = on {
            self.must_take_over(on)?;
            if on == self.config.peer {
                self.must_hear_peer(group)?;
            }
            self.must_count(group, on)?;
        } else if both.iter().all(|node| self.wishes.is_suspended(*node)) {
            return Err(suspended("both nodes are"));
        }
        let home = on.or(before);
        let text = match home {
            Some(home) => format!("{name} starts on {}", self.name_of(home)),
            None => format!("{name} starts"),
        };
        Ok(Judged::Wish(subject, Want::Runs { home }, text))
    }

    fn must_take_over(&self, node: NodeId) -> Result<(), Problem> {
        if self.wishes.is_suspended(node) {
            return Err(suspended(&format!("{} is", self.name_of(node))));
        }
        Ok(())
    }

    /// Whether the other node's control plane and its volumes' daemons are there.
    fn must_hear_peer(&self, group: usize) -> Result<(), Problem> {
        let (me, peer) = (&self.config.name, &self.config.peer_name);
        if !self.is_peer_heard() {
            return Err(refused(
                "LS6081",
                format!("the control plane of {peer} is not heard on {me}"),
                format!(
                    "see that {peer} and its lockstepd run, and the interconnects in `lockstep status`"
                ),
            ));
        }
        for (volume, status) in self.statuses(group)? {
            if status.link.state != LinkState::Up {
                return Err(refused(
                    "LS6081",
                    format!("the mirror link of volume {volume} is down"),
                    format!(
                        "see that the daemon of {volume} runs on {peer}, and the network between the nodes"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Whether the copies of a node can be served, and nothing changes just now.
    fn must_count(&self, group: usize, node: NodeId) -> Result<(), Problem> {
        let place = self.name_of(node);
        for (volume, status) in self.statuses(group)? {
            let own = node == self.config.me;
            let name = if own { &status.node } else { &status.peer };
            if !status.view.insync.contains(name) {
                return Err(refused(
                    "LS6082",
                    format!("the copy of volume {volume} on {place} is not up to date"),
                    format!(
                        "`lockstep volume status {volume}` says how far the copying is; repeat the command then"
                    ),
                ));
            }
            if status.frozen.is_some() || status.view.changing {
                return Err(refused(
                    "LS6083",
                    format!("a change of volume {volume} is under way"),
                    format!(
                        "repeat the command in a moment; `lockstep volume status {volume}` tells what it waits for"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// What the daemons of the group's volumes said last on this node.
    fn statuses(&self, group: usize) -> Result<Vec<(&str, &Status)>, Problem> {
        let told = |volume: &String| self.groups[group].told.get_key_value(volume);
        let volumes = self.config.groups[group].volumes.iter();
        let statuses = volumes.map(|volume| {
            let (volume, status) = told(volume).ok_or_else(|| {
                refused(
                    "LS6095",
                    format!(
                        "the daemon of volume {volume} does not answer on {}",
                        self.config.name
                    ),
                    format!("`lockstep volume start {volume}`, then repeat the command"),
                )
            })?;
            Ok((volume.as_str(), &**status))
        });
        statuses.collect()
    }
}

fn suspended(who: &str) -> Problem {
    refused(
        "LS6084",
        format!("{who} suspended: nothing is taken over or moved there"),
        "`lockstep node resume NODE` ends that, or `lockstep cluster resume` if the whole cluster was suspended",
    )
}
