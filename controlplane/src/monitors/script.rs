//! A program that ends with 0 if all is well.

use super::Ill;
use crate::resources::Context;
use crate::resources::cage::Cage;

/// A program that is run for each look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Program with absolute path, and arguments.
    pub command: Vec<String>,
}

impl Script {
    pub(super) fn look(&self, context: &Context) -> Result<(), Ill> {
        let status = Cage::of(&context.places).run(&self.command, context)?;
        if status.success() {
            return Ok(());
        }
        Err(Ill::Ended {
            command: self.command.join(" "),
            status,
            log: context.places.log(),
        })
    }
}
