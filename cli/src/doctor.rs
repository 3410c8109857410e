//! `lockstep doctor`: whether this server has what Lockstep needs, before and after it is set up.
//!
//! [`look`] reads the machine and changes nothing, [`facts`] is what it found, [`judge`] makes checks of it without input
//! or output, and [`told`] is how they are read: the screen and the JSON document.

pub(crate) mod facts;
pub(crate) mod judge;
pub(crate) mod look;
pub(crate) mod told;

use serde::Serialize;

/// What a check is about; the screen has a heading for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Area {
    /// Kernel, driver, rights, memory, clock.
    System,
    /// Programs, `lockstepd`, `cluster.toml`.
    Lockstep,
    /// Keys, directories, room.
    Files,
    /// Addresses, links, routes, ports.
    Network,
    /// The volumes' devices.
    Disks,
}

impl Area {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Lockstep => "lockstep",
            Self::Files => "files",
            Self::Network => "network",
            Self::Disks => "disks",
        }
    }
}

/// What is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// In docs/codes.md.
    pub(crate) code: String,
    pub(crate) what: String,
    pub(crate) why: String,
    pub(crate) advice: String,
}

impl Fault {
    pub(crate) fn new(
        code: &str,
        what: impl Into<String>,
        why: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            code: code.to_string(),
            what: what.into(),
            why: why.into(),
            advice: advice.into(),
        }
    }
}

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As it should be, in words.
    Good(String),
    /// It works, and a person should look.
    Warning(Fault),
    /// It does not work so.
    Error(Fault),
    /// There is nothing to look at yet, and why. It is no gap.
    Nothing(String),
    /// It should have been looked at and could not be, and why.
    Unseen(String),
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    pub(crate) area: Area,
    /// The name of the check in docs/operations.md; it stays.
    pub(crate) name: &'static str,
    /// Which of several: an address, a device, a file.
    pub(crate) place: Option<String>,
    pub(crate) outcome: Outcome,
}

impl Check {
    pub(crate) fn new(area: Area, name: &'static str, outcome: Outcome) -> Self {
        Self {
            area,
            name,
            place: None,
            outcome,
        }
    }

    pub(crate) fn at(self, place: impl Into<String>) -> Self {
        Self {
            place: Some(place.into()),
            ..self
        }
    }
}

/// How many checks came out how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    pub(crate) good: usize,
    pub(crate) warnings: usize,
    pub(crate) errors: usize,
    pub(crate) unseen: usize,
    pub(crate) nothing: usize,
}

impl Counts {
    pub(crate) fn of(checks: &[Check]) -> Self {
        let mut counts = Self::default();
        for check in checks {
            match check.outcome {
                Outcome::Good(_) => counts.good += 1,
                Outcome::Warning(_) => counts.warnings += 1,
                Outcome::Error(_) => counts.errors += 1,
                Outcome::Unseen(_) => counts.unseen += 1,
                Outcome::Nothing(_) => counts.nothing += 1,
            }
        }
        counts
    }

    /// Errors first, then what could not be seen, then warnings, as `lockstep status` counts.
    pub(crate) fn exit_code(self) -> u8 {
        use crate::verdict::Health;
        let health = match self {
            Self { errors: 1.., .. } => Health::Down,
            Self { unseen: 1.., .. } => Health::Unknown,
            Self { warnings: 1.., .. } => Health::Degraded,
            Self { .. } => Health::Healthy,
        };
        health.exit_code()
    }
}
