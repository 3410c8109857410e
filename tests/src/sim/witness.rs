//! The register of a run with control planes, and each node's connection to it: one line goes there, one comes back.
//! The rules are [`controlplane_core::register`]'s; here is what a witness and a socket do.

use std::collections::{BTreeMap, VecDeque};

use controlplane_core::register::{Answer, Claim, Refusal, Register, Registers};
use mirror_core::types::{Instant, NodeId, NodeSet, ViewId, VolumeId};
use mirror_core::view::{View, ViewMark};

use super::control::{Incoming, Step};
use super::node::{MS, id};
use super::world::World;

/// Connecting and each answer, milliseconds without haste.
const TIMEOUT_MS: u64 = 2000;
/// Between two tries to connect.
const RETRY_MS: u64 = 500;
/// Between two reports.
const REPORT_MS: u64 = 1000;
/// What waits to be sent.
const QUESTIONS_MAX: usize = 256;

/// What a node says.
#[derive(Clone, Debug)]
pub(super) enum Line {
    /// A claim.
    Claim { number: u64, claims: Vec<Claim> },
    /// A release.
    Release {
        number: u64,
        volumes: Vec<(VolumeId, ViewMark)>,
    },
    /// The view that its copy holds durably.
    Report(Option<View>),
}

/// What it is told.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// To a report.
    Reported,
    /// To a claim.
    Answer { number: u64, answer: Answer },
    /// To a release.
    Released { number: u64 },
}

/// A node's side.
#[derive(Debug, Default)]
pub(super) struct Client {
    /// The run of the witness, and the number of the connection there.
    connection: Option<(u64, u64)>,
    /// Counts what was sent.
    exchange: u64,
    /// What is not answered yet, and when it was sent.
    busy: Option<(u64, Instant)>,
    questions: VecDeque<Line>,
    report_at: u64,
}

impl Client {
    pub(super) fn waits_for(&self, exchange: u64) -> bool {
        self.busy.is_some_and(|busy| busy.0 == exchange)
    }
}

/// The register's side.
#[derive(Debug)]
pub(super) struct Witness {
    pub(super) up: bool,
    /// Its runs so far.
    server: u64,
    registers: Registers,
    backup: BTreeMap<VolumeId, Register>,
    accepted: u64,
    /// The newest connection of each node.
    newest: [u64; 2],
    /// A node's way to it is cut.
    pub(super) cut: [bool; 2],
    /// Every view that was granted: to whom, and on which one.
    pub(super) grants: BTreeMap<ViewId, (usize, ViewMark)>,
    pub(super) noisy: bool,
    /// The next answer that grants something is lost.
    pub(super) loses_grant: bool,
}

fn both() -> NodeSet {
    NodeSet::only(id(0)).with(id(1))
}

impl Witness {
    pub(super) fn new() -> Self {
        Self {
            up: true,
            server: 1,
            registers: Registers::new(both(), BTreeMap::new()),
            backup: BTreeMap::new(),
            accepted: 0,
            newest: [0; 2],
            cut: [false; 2],
            grants: BTreeMap::new(),
            noisy: true,
            loses_grant: false,
        }
    }

    /// Whether it knows the volume, and could grant something.
    pub(super) fn is_enrolled(&self) -> bool {
        !self.registers.durable().is_empty()
    }

    /// Who it keeps the other node out for.
    pub(super) fn holder(&self) -> Option<NodeId> {
        let register = self.registers.durable().get(&VOLUME)?;
        register.holder
    }

    fn restart(&mut self, known: BTreeMap<VolumeId, Register>) {
        self.server += 1;
        self.newest = [0; 2];
        self.registers = Registers::new(both(), known);
    }

    /// It ends and runs again with what was durable.
    pub(super) fn restarts(&mut self) {
        let known = self.registers.durable().clone();
        self.restart(known);
    }

    /// Its data are lost.
    pub(super) fn forgets(&mut self) {
        self.restart(BTreeMap::new());
    }

    /// Its data are put back from a copy; it sees that the file is not the one that it wrote.
    pub(super) fn is_put_back(&mut self, believed: bool) {
        let known = if believed {
            self.backup.clone()
        } else {
            BTreeMap::new()
        };
        self.restart(known);
    }

    /// Somebody makes a copy of its data.
    pub(super) fn is_copied(&mut self) {
        self.backup = self.registers.durable().clone();
    }
}

impl World {
    fn reaches_the_register(&self, node: usize) -> bool {
        self.control.witness.up && !self.control.witness.cut[node]
    }

    /// Until something arrives; `None`: it does not.
    fn register_travel(&mut self, node: usize) -> Option<u64> {
        let haste = self.plan.haste;
        let reaches = self.reaches_the_register(node);
        let noisy = self.control.witness.noisy;
        let rng = &mut self.control.rng;
        if !reaches {
            // What was sent once is sent again when the way is whole.
            return rng.percent(30).then(|| rng.below(6000 * MS) / haste);
        }
        Some(match rng.below(40) {
            0 if noisy => rng.below(6000 * MS) / haste,
            1..=3 if noisy => rng.below(300 * MS) / haste,
            _ => rng.between(MS / 20, 2 * MS),
        })
    }

    // --- a node's side ------------------------------------------------------------------------

    pub(super) fn connect_to_the_register(&mut self, node: usize, run: u64) {
        if self.control.daemon(node, run).is_none() {
            return;
        }
        if self.reaches_the_register(node) {
            let after = self.control.rng.between(MS / 10, 3 * MS);
            let server = self.control.witness.server;
            self.control_later(after, Step::Connected { node, run, server });
        } else {
            let after = self.control_ms(TIMEOUT_MS + RETRY_MS);
            self.control_later(after, Step::Connect { node, run });
        }
    }

    pub(super) fn connected(&mut self, node: usize, run: u64, server: u64) {
        if server != self.control.witness.server || !self.reaches_the_register(node) {
            let after = self.control_ms(RETRY_MS);
            return self.control_later(after, Step::Connect { node, run });
        }
        self.control.witness.accepted += 1;
        let number = self.control.witness.accepted;
        let now = self.now;
        if let Some(daemon) = self.control.daemon(node, run) {
            daemon.client.connection = Some((server, number));
            daemon.client.report_at = now;
            self.next_line(node, run);
        }
    }

    /// A question for the register; who does not get through is asked again by whoever asked.
    pub(super) fn line_to_the_register(&mut self, node: usize, run: u64, line: Line) {
        if let Some(daemon) = self.control.daemon(node, run) {
            let questions = &mut daemon.client.questions;
            if questions.len() < QUESTIONS_MAX {
                questions.push_back(line);
            }
            self.next_line(node, run);
        }
    }

    /// Sends what waits, a line at a time.
    pub(super) fn next_line(&mut self, node: usize, run: u64) {
        let now = self.now;
        let clock = self.path_clock(node);
        let either = self.control.rng.percent(50);
        let report_after = self.control_ms(REPORT_MS);
        let Some(daemon) = self.control.daemon(node, run) else {
            return;
        };
        let client = &mut daemon.client;
        let Some(connection) = client.connection.filter(|_| client.busy.is_none()) else {
            return;
        };
        let due = client.report_at <= now;
        let question = (!due || either).then(|| client.questions.pop_front());
        let line = match question.flatten() {
            Some(line) => line,
            None if due => {
                client.report_at = now + report_after;
                Line::Report(daemon.held)
            }
            None => return,
        };
        client.exchange += 1;
        let exchange = client.exchange;
        client.busy = Some((exchange, clock));
        if let Some(after) = self.register_travel(node) {
            let asked = Step::Asked {
                node,
                run,
                connection,
                exchange,
                line,
            };
            self.control_later(after, asked);
        } else {
            self.count("control: questions lost");
        }
        let after = self.control_ms(TIMEOUT_MS);
        self.control_later(
            after,
            Step::Silent {
                node,
                run,
                exchange,
            },
        );
    }

    pub(super) fn witness_replied(
        &mut self,
        node: usize,
        run: u64,
        connection: (u64, u64),
        exchange: u64,
        reply: Reply,
    ) {
        let Some(daemon) = self.control.daemon(node, run) else {
            return;
        };
        let client = &mut daemon.client;
        let open = client.busy.filter(|busy| busy.0 == exchange);
        let Some((_, asked)) = open.filter(|_| client.connection == Some(connection)) else {
            self.count("control: replies too late");
            return;
        };
        client.busy = None;
        let report_after = client.report_at.saturating_sub(self.now);
        self.incoming(node, run, 0, Incoming::Contact { asked });
        match reply {
            Reply::Reported => {}
            Reply::Answer { number, answer } => {
                self.incoming(node, run, 0, Incoming::Answered { number, answer });
            }
            Reply::Released { number } => {
                self.incoming(node, run, 0, Incoming::GivenBack { number });
            }
        }
        self.next_line(node, run);
        self.control_later(report_after, Step::Report { node, run });
    }

    /// The connection is over; what was asked meanwhile is asked again by whoever asked.
    pub(super) fn witness_is_silent(&mut self, node: usize, run: u64, exchange: u64) {
        let after = self.control_ms(RETRY_MS);
        let Some(daemon) = self.control.daemon(node, run) else {
            return;
        };
        let client = &mut daemon.client;
        if client.busy.is_some_and(|busy| busy.0 == exchange) {
            client.busy = None;
            client.connection = None;
            client.questions.clear();
            self.count("control: connections to the register lost");
            self.control_later(after, Step::Connect { node, run });
        }
    }

    // --- the register's side ------------------------------------------------------------------

    pub(super) fn witness_is_asked(
        &mut self,
        node: usize,
        run: u64,
        connection: (u64, u64),
        exchange: u64,
        line: Line,
    ) {
        let (server, number) = connection;
        let witness = &mut self.control.witness;
        if server != witness.server || !self.reaches_the_register(node) {
            self.count("control: lines to an earlier register");
            return;
        }
        let witness = &mut self.control.witness;
        if witness.newest[node] > number {
            self.count("control: lines on an older connection");
            return;
        }
        witness.newest[node] = number;
        let reply = self.witness_answers(node, line);
        let granted = matches!(
            reply,
            Reply::Answer {
                answer: Answer::Granted(_),
                ..
            }
        );
        if granted && std::mem::take(&mut self.control.witness.loses_grant) {
            self.count("control: grants lost");
        } else if let Some(after) = self.register_travel(node) {
            let replied = Step::Replied {
                node,
                run,
                connection,
                exchange,
                reply,
            };
            self.control_later(after, replied);
        } else {
            self.count("control: replies lost");
        }
    }

    fn witness_answers(&mut self, node: usize, line: Line) -> Reply {
        let registers = &mut self.control.witness.registers;
        match line {
            Line::Report(view) => {
                let known = !registers.durable().is_empty();
                if let Some(view) = view {
                    registers.report(id(node), VOLUME, &view);
                }
                if !known && !registers.durable().is_empty() {
                    self.count("control: register enrolled");
                    self.note(|| "the register knows the volume".to_string());
                }
                Reply::Reported
            }
            Line::Release { number, volumes } => {
                let mut freed = false;
                for (_, view) in volumes {
                    freed |= registers.release(id(node), VOLUME, view);
                }
                let missing = registers.missing(VOLUME);
                self.note(|| format!("the register: {node} gives back, {freed}"));
                self.count(match (freed, missing) {
                    (true, _) => "control: given back",
                    (false, None) => "control: nothing to give back",
                    (false, Some(_)) => "control: release not confirmed",
                });
                match missing {
                    None => Reply::Released { number },
                    Some(missing) => Reply::Answer {
                        number,
                        answer: Answer::Refused {
                            volume: VOLUME,
                            refusal: Refusal::NotEnrolled { missing },
                        },
                    },
                }
            }
            Line::Claim { number, claims } => {
                let answer = self.witness_judges(node, &claims);
                Reply::Answer { number, answer }
            }
        }
    }

    fn witness_judges(&mut self, node: usize, claims: &[Claim]) -> Answer {
        let here: Vec<Claim> = claims
            .iter()
            .map(|claim| Claim {
                volume: VOLUME,
                ..*claim
            })
            .collect();
        let answer = self.control.witness.registers.claim(id(node), &here);
        self.note(|| format!("the register: {node} claims {claims:?}: {answer:?}"));
        match &answer {
            Answer::Granted(marks) => {
                for (claim, mark) in claims.iter().zip(marks) {
                    let granted = (node, claim.basis);
                    let before = self.control.witness.grants.insert(mark.id, granted);
                    self.count(if before.is_some() {
                        "control: grants repeated"
                    } else {
                        "control: grants"
                    });
                    self.check_grant(node, claim.basis, *mark);
                    self.ambush_a_grant(node);
                }
            }
            Answer::Refused { refusal, .. } => {
                self.count(refusal_mark(*refusal));
            }
        }
        answer
    }
}

/// The only one.
const VOLUME: VolumeId = VolumeId([1; 16]);

fn refusal_mark(refusal: controlplane_core::register::Refusal) -> &'static str {
    use controlplane_core::register::Refusal;
    match refusal {
        Refusal::Superseded { .. } => "control: refused, superseded",
        Refusal::Held { .. } => "control: refused, held",
        Refusal::Diverged { .. } => "control: refused, diverged",
        Refusal::NotEnrolled { .. } => "control: refused, not enrolled",
        Refusal::Malformed => "control: refused, malformed",
    }
}
