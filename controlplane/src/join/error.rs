//! Why something did not come about while a cluster is set up.

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use controlplane_api::arbiter::Hex16;
use mirror_core::admin::Problem;
use thiserror::Error;

use super::advice;
use super::token::TokenError;
use crate::config::ConfigError;
use crate::key::KeyError;
use crate::trust::TrustError;

/// Why nothing came of it; each has a code of docs/codes.md and says what to do.
#[derive(Debug, Error)]
pub enum JoinError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The disk refuses.
    #[error("cannot {what} {}", .path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Something else is there already.
    #[error("{} is there already, and it is another one", .path.display())]
    Occupied {
        /// Which file.
        path: PathBuf,
    },
    /// The same where `init` stands, which replaces nothing.
    #[error("{} is there already, and it is another one", .path.display())]
    InTheWay {
        /// Which file.
        path: PathBuf,
    },
    /// The inviting end knows another witness.
    #[error("another witness has joined this cluster ({} of the node that invites)", .path.display())]
    OtherWitness {
        /// That one's certificate.
        path: PathBuf,
    },
    /// The key of another cluster would be lost.
    #[error("{} {}, and the invitation is to cluster {cluster}{}", .path.display(), whose(.own.as_ref()), resting(.volumes))]
    OtherKey {
        /// Which file.
        path: PathBuf,
        /// Its cluster; `None`: it is no key.
        own: Option<Hex16>,
        /// Who invites.
        cluster: Hex16,
        /// What rests on it.
        volumes: Vec<String>,
    },
    /// A witness that served this cluster before.
    #[error("{} is there already: what this witness granted in an earlier time", .path.display())]
    OldRegisters {
        /// Which file.
        path: PathBuf,
    },
    /// A witness on a node is no third opinion.
    #[error("this token is for the witness, and this machine is a node ({})", .path.display())]
    NodeHere {
        /// What a node has.
        path: PathBuf,
    },
    /// What is there cannot be used.
    #[error("{}: {why}", .path.display())]
    Unfit {
        /// Which file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// A key that is there cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// What was typed is no token.
    #[error("this is no token: {0}")]
    Typed(#[from] TokenError),
    /// The token was not given out.
    #[error("a wrong token; {left} more wrong ones and the invitation is closed")]
    WrongToken {
        /// So many are left.
        left: u32,
    },
    /// The token was taken before.
    #[error("this token was used already")]
    UsedToken,
    /// The token is being used.
    #[error("this token is in use: {guest} joins with it from {address}")]
    TokenInside {
        /// Whose it is.
        guest: String,
        /// Who came with it.
        address: SocketAddr,
    },
    /// Who has the key nobody knows.
    #[error("the cluster's key was handed to {address} in the name of {guest}, and it did not confirm that it joined{}", not_joined(.missing))]
    KeyIsOut {
        /// Who it should be.
        guest: String,
        /// Who got it.
        address: SocketAddr,
        /// Who else did not join.
        missing: Vec<String>,
    },
    /// Too many wrong tokens.
    #[error("the invitation is closed: {tries} wrong tokens were tried")]
    Closed {
        /// So many.
        tries: u32,
    },
    /// The invitation ended.
    #[error("the time of the invitation is over{}", not_joined(.missing))]
    Over {
        /// Who did not join.
        missing: Vec<String>,
    },
    /// The other end has not the certificate that the token names.
    #[error("{address} is not who made this token: it was told nothing")]
    Stranger {
        /// Who was asked.
        address: String,
    },
    /// Nobody listens.
    #[error("cannot reach {address}")]
    Unreachable {
        /// Who was asked.
        address: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It cannot be listened there.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The conversation ended, or makes no sense.
    #[error("the connection broke while {what}")]
    Broken {
        /// What was under way.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Everything is done here, and nobody confirmed it.
    #[error("all is in its place here; only the last word of the other end was lost")]
    Unconfirmed {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What came is not what it should be.
    #[error("what came from the other end cannot be used")]
    Content(#[from] TrustError),
    /// Nobody of this name.
    #[error("nobody called {name:?} can be invited; there are {}", .known.join(", "))]
    NoSuchGuest {
        /// Who was named.
        name: String,
        /// Who could be.
        known: Vec<String>,
    },
    /// The token is somebody else's.
    #[error("this token is for {invited}, and {name} came with it")]
    OtherGuest {
        /// Who came.
        name: String,
        /// Whose token it is.
        invited: String,
    },
    /// The token is the witness's, and this shall be a node.
    #[error("this token is for the witness, and --node {name} was given")]
    WitnessToken {
        /// Who it should become.
        name: String,
    },
    /// This node cannot invite.
    #[error("there is no authority of the cluster here ({})", .path.display())]
    NoAuthority {
        /// Where it would be.
        path: PathBuf,
    },
    /// An end of another release.
    #[error("the other end speaks version {version} of joining")]
    Version {
        /// What it speaks.
        version: u32,
    },
    /// What the other end said.
    #[error("{who} says: {}", .problem.message)]
    Told {
        /// Who said it.
        who: String,
        /// What.
        problem: Problem,
    },
}

fn not_joined(names: &[String]) -> String {
    if names.is_empty() {
        String::new()
    } else {
        format!("; not joined: {}", names.join(", "))
    }
}

fn whose(own: Option<&Hex16>) -> String {
    own.map_or_else(
        || "is no key of a cluster".to_string(),
        |own| format!("is the key of cluster {own}"),
    )
}

fn resting(volumes: &[String]) -> String {
    match volumes {
        [] => String::new(),
        [volume] => format!("; the volume {volume} of this machine rests on the old key"),
        volumes => format!(
            "; the volumes {} of this machine rest on the old key",
            volumes.join(", ")
        ),
    }
}

impl JoinError {
    /// A code of docs/codes.md.
    pub fn code(&self) -> &str {
        match self {
            Self::Config(_) => "LS6026",
            Self::File { .. } => "LS4010",
            Self::Occupied { .. }
            | Self::InTheWay { .. }
            | Self::OtherWitness { .. }
            | Self::OldRegisters { .. }
            | Self::NodeHere { .. }
            | Self::Unfit { .. }
            | Self::Key(_) => "LS6027",
            Self::KeyIsOut { .. } => "LS6077",
            Self::OtherKey { .. } => "LS6078",
            Self::Typed(_)
            | Self::WrongToken { .. }
            | Self::UsedToken
            | Self::TokenInside { .. } => "LS6028",
            Self::Closed { .. } => "LS6029",
            Self::Over { .. } => "LS6030",
            Self::Stranger { .. } => "LS6031",
            Self::Unreachable { .. }
            | Self::Listen { .. }
            | Self::Broken { .. }
            | Self::Unconfirmed { .. }
            | Self::Content(_)
            | Self::Version { .. } => "LS6032",
            Self::NoSuchGuest { .. }
            | Self::OtherGuest { .. }
            | Self::WitnessToken { .. }
            | Self::NoAuthority { .. } => "LS6033",
            Self::Told { problem, .. } => &problem.code,
        }
    }

    fn advice(&self) -> &str {
        match self {
            Self::Config(_) => advice::CONFIG,
            Self::File { .. } => advice::FILE,
            Self::Occupied { .. } => advice::OCCUPIED,
            Self::InTheWay { .. } => advice::IN_THE_WAY,
            Self::OtherWitness { .. } => advice::OTHER_WITNESS,
            Self::OtherKey { volumes, .. } if volumes.is_empty() => advice::OTHER_KEY,
            Self::OtherKey { .. } => advice::KEY_OF_VOLUMES,
            Self::OldRegisters { .. } => advice::OLD_REGISTERS,
            Self::NodeHere { .. } => advice::NODE_HERE,
            Self::Unfit { .. } | Self::Key(_) => advice::UNFIT,
            Self::Typed(_) => advice::TYPED,
            Self::WrongToken { .. } | Self::UsedToken => advice::ANOTHER_TOKEN,
            Self::TokenInside { .. } => advice::TOKEN_INSIDE,
            Self::KeyIsOut { .. } => advice::KEY_IS_OUT,
            Self::Closed { .. } => advice::CLOSED,
            Self::Over { .. } => advice::OVER,
            Self::Stranger { .. } => advice::STRANGER,
            Self::Unreachable { .. } => advice::UNREACHABLE,
            Self::Listen { .. } => advice::LISTEN,
            Self::Broken { .. } | Self::Content(_) => advice::AGAIN,
            Self::Unconfirmed { .. } => advice::UNCONFIRMED,
            Self::NoSuchGuest { .. } => advice::NO_SUCH_GUEST,
            Self::OtherGuest { .. } => advice::OTHER_GUEST,
            Self::WitnessToken { .. } => advice::WITNESS_TOKEN,
            Self::NoAuthority { .. } => advice::NO_AUTHORITY,
            Self::Version { .. } => advice::VERSION,
            Self::Told { problem, .. } => &problem.advice,
        }
    }

    /// As an operator reads it.
    pub fn problem(&self) -> Problem {
        let mut message = self.to_string();
        let mut cause = self.source();
        // What shows its cause itself has that one's words already.
        while let Some(error) = cause {
            let text = error.to_string();
            if !message.ends_with(&text) {
                message = format!("{message}: {text}");
            }
            cause = error.source();
        }
        Problem {
            code: self.code().to_string(),
            message,
            advice: if let Self::Told { .. } = self {
                // Where it has to be done, not here.
                format!("there: {}", self.advice())
            } else {
                self.advice().to_string()
            },
        }
    }

    /// The conversation is at its end: there is nobody to whom a reason could be told.
    pub(super) fn ended_the_conversation(&self) -> bool {
        if let Self::Broken { source, .. } = self {
            return source.kind() != io::ErrorKind::InvalidData;
        }
        matches!(self, Self::Told { .. } | Self::Unconfirmed { .. })
    }
}
