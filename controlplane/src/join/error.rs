//! Why something did not come about while a cluster is set up.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;

use mirror_core::admin::Problem;
use thiserror::Error;

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
    #[error("{}", .0.message)]
    Told(Problem),
}

fn not_joined(names: &[String]) -> String {
    if names.is_empty() {
        String::new()
    } else {
        format!("; not joined: {}", names.join(", "))
    }
}

const AGAIN: &str = "get a new token (the inviting end shows one, or `lockstep cluster invite` there), and join again: \
     what is there already stays";

impl JoinError {
    /// A code of docs/codes.md.
    pub fn code(&self) -> &str {
        match self {
            Self::Config(_) => "LS6026",
            Self::File { .. } => "LS4010",
            Self::Occupied { .. } | Self::Unfit { .. } | Self::Key(_) => "LS6027",
            Self::Typed(_) | Self::WrongToken { .. } | Self::UsedToken => "LS6028",
            Self::Closed { .. } => "LS6029",
            Self::Over { .. } => "LS6030",
            Self::Stranger { .. } => "LS6031",
            Self::Unreachable { .. }
            | Self::Listen { .. }
            | Self::Broken { .. }
            | Self::Unconfirmed { .. }
            | Self::Content(_)
            | Self::Version { .. } => "LS6032",
            Self::NoSuchGuest { .. } | Self::OtherGuest { .. } | Self::NoAuthority { .. } => {
                "LS6033"
            }
            Self::Told(problem) => &problem.code,
        }
    }

    fn advice(&self) -> &str {
        match self {
            Self::Config(_) => {
                "write cluster.toml on this node first (docs/controlplane.md, \"Setting it up\"); nothing was changed"
            }
            Self::File { .. } => {
                "run the command as root, and see that the file system has room; then repeat it"
            }
            Self::Occupied { .. } => {
                "nothing was changed. If it is of an earlier cluster, move it away, or repeat the command with --force"
            }
            Self::Unfit { .. } | Self::Key(_) => {
                "nothing was changed. Mend it as the message says, or move it away, and repeat the command"
            }
            Self::Typed(_) => "nothing was sent, and no try was counted; type it again",
            Self::WrongToken { .. } | Self::UsedToken => {
                "take the token that the inviting end shows for this machine; each works once"
            }
            Self::Closed { .. } => {
                "see who tries (the inviting end shows the addresses), then `lockstep cluster invite` there again"
            }
            Self::Over { .. } => {
                "`lockstep cluster invite` on the first node again; it makes new tokens"
            }
            Self::Stranger { .. } => {
                "the token is of an earlier invitation, the address is wrong, or somebody is in between: take address and \
                 token from the screen of the inviting end"
            }
            Self::Unreachable { .. } => {
                "see that `lockstep cluster invite` runs there, that the address is right, and that no firewall is in between"
            }
            Self::Listen { .. } => {
                "another invitation runs, or the address is not of this machine: --listen ADDRESS:PORT names another one"
            }
            Self::Broken { .. } | Self::Content(_) => AGAIN,
            Self::Unconfirmed { .. } => {
                "if the inviting end says that this machine has joined, nothing is left to do; else join again with a new token: \
                 what is there already stays"
            }
            Self::NoSuchGuest { .. } => {
                "name one of them, with `--node NAME` where it joins; another one is written into cluster.toml first"
            }
            Self::OtherGuest { .. } => {
                "take the token that is shown for this machine, or say with --node which one it is"
            }
            Self::NoAuthority { .. } => {
                "invite on the node on which `lockstep cluster init` was run"
            }
            Self::Version { .. } => "install the same release on both machines",
            Self::Told(problem) => &problem.advice,
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
            advice: self.advice().to_string(),
        }
    }

    /// The conversation is at its end: there is nobody to whom a reason could be told.
    pub(super) fn ended_the_conversation(&self) -> bool {
        if let Self::Broken { source, .. } = self {
            return source.kind() != io::ErrorKind::InvalidData;
        }
        matches!(self, Self::Told(_) | Self::Unconfirmed { .. })
    }
}
