//! How many may wait for the answer to a command.

use mirror_core::limits::COMMANDS_MAX;

use super::Asker;

impl Asker {
    /// Beside so many who wait. A signal always: nobody sends it a second time, and there is nobody to be told that it was too
    /// much. At most one of them waits: the core answers a stop at once while another one is under way.
    pub(super) fn finds_room(&self, waiting: usize) -> bool {
        match self {
            Self::Client(_) | Self::Resolver(..) => waiting < COMMANDS_MAX,
            Self::Signal(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[test]
    fn a_signal_gets_through_where_clients_are_too_many() {
        let (answer, _) = sync_channel(1);
        let client = Asker::Client(answer);
        assert!(client.finds_room(COMMANDS_MAX - 1));
        assert!(!client.finds_room(COMMANDS_MAX));
        assert!(Asker::Signal("SIGTERM").finds_room(COMMANDS_MAX));
    }
}
