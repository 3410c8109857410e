//! Scripts: one starts something, one stops it, one may look.

use controlplane_core::group::{Manner, Outcome};

use super::cage::Cage;
use super::mark::{Mark, Phase};
use super::{Context, ResourceError};

/// A resource of scripts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// Program and arguments. It ends with 0 when everything runs.
    pub start: Vec<String>,
    /// The same for the stop; without it what the start left running is ended.
    pub stop: Option<Vec<String>>,
    /// Ends with 0 if it runs.
    pub check: Option<Vec<String>>,
}

impl Exec {
    pub(super) fn probe(&self, context: &Context) -> Result<Outcome, ResourceError> {
        let mark = Mark::read(&context.places)?;
        let runs = match &self.check {
            None => None,
            Some(check) => Some(Cage::of(&context.places).run(check, context)?.success()),
        };
        Ok(match (mark.map(|mark| mark.phase), runs) {
            (Some(Phase::Online), None | Some(true)) => Outcome::Done,
            (None, None | Some(false)) => Outcome::Absent,
            // Half started or half stopped, or run by somebody else, or ended by itself.
            (Some(_), _) | (None, Some(true)) => Outcome::Failed,
        })
    }

    pub(super) fn start(&self, context: &Context) -> Result<(), ResourceError> {
        let cage = Cage::of(&context.places);
        Mark::new(Phase::Starting).write(&context.places)?;
        if let Err(error) = succeed(&cage, &self.start, context) {
            cage.kill()?;
            return Err(error);
        }
        Mark::new(Phase::Online).write(&context.places)
    }

    pub(super) fn stop(&self, manner: Manner, context: &Context) -> Result<(), ResourceError> {
        let cage = Cage::of(&context.places);
        Mark::new(Phase::Stopping).write(&context.places)?;
        if manner == Manner::Hard {
            cage.kill()?;
        }
        // Also after a kill: what the script started may run outside (a unit, a container).
        if let Some(stop) = &self.stop {
            succeed(&cage, stop, context)?;
        }
        match manner {
            Manner::Orderly => cage.end(&context.limit.half())?,
            Manner::Hard => cage.kill()?,
        }
        cage.remove();
        Mark::remove(&context.places)
    }
}

fn succeed(cage: &Cage, command: &[String], context: &Context) -> Result<(), ResourceError> {
    let status = cage.run(command, context)?;
    if status.success() {
        return Ok(());
    }
    Err(ResourceError::Command {
        command: command.join(" "),
        status,
        log: context.places.log(),
    })
}
