//! How a cluster comes together without secrets being copied by hand.
//!
//! One node has the cluster's authority ([`home`]). It *invites* ([`invite`]): for a while it listens, and shows a token
//! for each machine that shall join. The other machine *joins* ([`guest`]) with that token. The token names the certificate
//! of the inviting end, so that the joining one knows whom it talks to before it says anything, and holds a secret
//! that proves to the inviting end who joins. Private keys stay where they were made; of the cluster's secrets only its key
//! travels, inside of TLS.
//!
//! Whatever breaks off in between: nothing counts at the inviting end before the joining one said that all is durable there, and
//! to join again changes nothing that is there already. So both ends come to one belief by repeating.

mod advice;
mod door;
mod error;
mod files;
pub(crate) mod frames;
mod guest;
mod home;
mod invite;
mod keys;
mod sockets;
mod strangers;
mod tls;
mod token;

pub use error::JoinError;
pub(crate) use files::random;
pub use files::{Existing, Note};
pub use frames::Role;
pub use guest::{Joined, Joining, Step, join};
pub use home::{Guest, Home, Places};
pub use invite::{Invitation, Progress, TRIES_MAX, invite};
pub use tls::Doorplate;
pub use token::{Fingerprint, Secret, Token, TokenError};

/// Where the inviting end listens.
pub const PORT: u16 = 7423;
