//! How a word is said to a data plane. What its status means is [`controlplane_core::facts`].

use controlplane_api::Client;
use controlplane_core::facts::command;
use controlplane_core::keeper::Word;
use mirror_core::admin::{Done, Problem};

pub use controlplane_core::facts::{LINKED_MS, facts, volume_id};

/// Says a word and waits until it is carried out or refused. Blocks.
///
/// # Errors
/// What the data plane answered, or why it cannot be reached.
pub fn say(client: &Client, word: Word) -> Result<Done, Problem> {
    client
        .command(command(word))
        .map_err(|error| error.problem())
}
