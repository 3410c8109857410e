//! What an arbiter does with a question, whoever keeps its registers: this daemon's witness, or etcd.

use std::collections::BTreeMap;

use controlplane_api::arbiter::{Ask, Hex16, Mark, Reply};
use controlplane_core::register::{Answer, Claim, Refusal, Register, Registers};
use mirror_core::types::{NodeId, VolumeId};
use mirror_core::view::ViewHistory;
use serde::{Deserialize, Serialize};

/// A register as it is written down.
#[derive(Debug, Serialize, Deserialize)]
pub struct RegisterLine {
    /// The last view.
    pub view: Mark,
    /// On which one it rests.
    pub basis: Mark,
    /// To whom it was granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<NodeId>,
}

/// The registers of a record, by their volumes.
pub type RegisterLines = BTreeMap<String, RegisterLine>;

/// As they are written down.
pub fn lines_of(registers: &Registers) -> RegisterLines {
    let lines = registers.durable().iter().map(|(volume, register)| {
        let line = RegisterLine {
            view: register.mark.into(),
            basis: register.basis.into(),
            holder: register.holder,
        };
        (Hex16(volume.0).to_string(), line)
    });
    lines.collect()
}

/// As they were written down.
///
/// # Errors
/// What is no volume's id.
pub fn registers_of(lines: RegisterLines) -> Result<BTreeMap<VolumeId, Register>, String> {
    let registers = lines.into_iter().map(|(volume, line)| {
        let volume: Hex16 = volume.parse()?;
        let register = Register {
            mark: line.view.into(),
            basis: line.basis.into(),
            holder: line.holder,
        };
        Ok((VolumeId(volume.0), register))
    });
    registers.collect()
}

/// What the registers are after this, and what is answered. Nothing may be answered before what changed is durable.
pub fn carry_out(registers: &mut Registers, node: NodeId, ask: Ask) -> Reply {
    match ask {
        Ask::Report { volumes } => {
            let members = registers.members().bits();
            let mut missing = 0;
            for held in volumes {
                let (volume, view) = held.view();
                registers.report(node, volume, &view);
                if let Some(enrolment) = registers.enrolling().get(&volume) {
                    missing |= members & !enrolment.reported.bits();
                }
            }
            Reply::Reported { missing }
        }
        Ask::Claim { claims } => {
            let claims: Vec<Claim> = claims
                .into_iter()
                .map(|claim| Claim {
                    volume: VolumeId(claim.volume.0),
                    basis: claim.basis.into(),
                    next: claim.next.into(),
                    history: history(&claim.history),
                })
                .collect();
            reply_to(registers.claim(node, &claims))
        }
        Ask::Release { volumes } => {
            let mut unknown = None;
            for (volume, view) in volumes {
                let volume = VolumeId(volume.0);
                registers.release(node, volume, view.into());
                let missing = registers.missing(volume);
                unknown = unknown.or(missing.map(|missing| (volume, missing)));
            }
            match unknown {
                None => Reply::Released,
                Some((volume, missing)) => reply_to(Answer::Refused {
                    volume,
                    refusal: Refusal::NotEnrolled { missing },
                }),
            }
        }
        Ask::Trust { .. } => failed("it is no question of registers".to_string()),
    }
}

/// There is no answer.
pub fn failed(reason: String) -> Reply {
    Reply::Failed { reason }
}

/// The newest first; what is too long was not this release's.
fn history(marks: &[Mark]) -> ViewHistory {
    let mut history = ViewHistory::default();
    for mark in marks.iter().take(history.0.len()).rev() {
        history.push((*mark).into());
    }
    history
}

fn reply_to(answer: Answer) -> Reply {
    let (volume, refusal) = match answer {
        Answer::Granted(views) => {
            let views = views.into_iter().map(Mark::from).collect();
            return Reply::Granted { views };
        }
        Answer::Refused { volume, refusal } => (Hex16(volume.0), refusal),
    };
    match refusal {
        Refusal::Superseded { epoch, holder } => Reply::Superseded {
            volume,
            epoch: epoch.0,
            holder,
        },
        Refusal::Held { epoch, holder } => Reply::Held {
            volume,
            epoch: epoch.0,
            holder,
        },
        Refusal::Diverged { epoch } => Reply::Diverged {
            volume,
            epoch: epoch.0,
        },
        Refusal::NotEnrolled { missing } => Reply::NotEnrolled {
            volume,
            missing: missing.bits(),
        },
        Refusal::Malformed => failed(refusal.to_string()),
    }
}
