//! Deliberate faults: each must be caught, or the simulator does not see what it should.

use super::world::Mutant;

/// Something that is deliberately wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// In the simulated shell.
    Shell(Mutant),
    /// In the core itself.
    #[cfg(feature = "mutants")]
    Core(mirror_core::mutant::Mutant),
    /// In the control plane's core.
    #[cfg(feature = "mutants")]
    Control(controlplane_core::mutant::Mutant),
}

/// A mutant with its name and the rule that it breaks.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// As `--mutant` takes it.
    pub name: &'static str,
    /// The rule.
    pub rule: &'static str,
    /// What is wrong.
    pub wrong: Wrong,
}

/// All mutants.
pub fn all() -> Vec<Row> {
    let shell = Mutant::ALL.iter().map(|(name, mutant, rule)| Row {
        name,
        rule,
        wrong: Wrong::Shell(*mutant),
    });
    let rows: Vec<Row> = shell.collect();
    #[cfg(feature = "mutants")]
    let rows = [rows, core(), control()].concat();
    rows
}

#[cfg(feature = "mutants")]
fn core() -> Vec<Row> {
    let rows = mirror_core::mutant::Mutant::ALL.iter();
    rows.map(|(name, mutant, rule)| Row {
        name,
        rule,
        wrong: Wrong::Core(*mutant),
    })
    .collect()
}

#[cfg(feature = "mutants")]
fn control() -> Vec<Row> {
    let rows = controlplane_core::mutant::Mutant::ALL.iter();
    rows.map(|(name, mutant, rule)| Row {
        name,
        rule,
        wrong: Wrong::Control(*mutant),
    })
    .collect()
}

impl Row {
    /// Whether a failure names a rule that this mutant breaks: any other failure does not count.
    pub fn is_named_by(&self, message: &str) -> bool {
        let line = message.lines().next().unwrap_or_default();
        let mut words = line.split(|c: char| !c.is_alphanumeric());
        words.any(|word| self.rule.split(' ').any(|rule| rule == word))
    }
}

impl Wrong {
    /// The part that concerns the simulated shell.
    pub(super) fn of_shell(self) -> Option<Mutant> {
        match self {
            Self::Shell(mutant) => Some(mutant),
            #[cfg(feature = "mutants")]
            Self::Core(_) | Self::Control(_) => None,
        }
    }
}

/// The core on this thread is wrong like that from now on, or right again.
pub(super) fn set_core(wrong: Option<Wrong>) {
    #[cfg(feature = "mutants")]
    mirror_core::mutant::set(match wrong {
        Some(Wrong::Core(mutant)) => Some(mutant),
        Some(Wrong::Shell(_) | Wrong::Control(_)) | None => None,
    });
    #[cfg(feature = "mutants")]
    controlplane_core::mutant::set(match wrong {
        Some(Wrong::Control(mutant)) => Some(mutant),
        Some(Wrong::Shell(_) | Wrong::Core(_)) | None => None,
    });
    let _ = wrong;
}
