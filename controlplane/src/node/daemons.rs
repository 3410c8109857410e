//! The daemons of this node's volumes, which `lockstepd` starts and keeps.

use std::path::Path;

use anyhow::Context;
use controlplane_api::cluster::Daemon;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::{Incoming, Node};
use crate::daemons::Places;
use crate::daemons::watch::{self, Heard};

/// Watches the daemon of a volume of this group.
pub(super) fn keep(
    group: usize,
    name: &str,
    config: &Path,
    queue: &mpsc::Sender<Incoming>,
) -> anyhow::Result<()> {
    let (queue, name) = (queue.clone(), name.to_string());
    let places = Places::of(&name, config);
    let tell = move |daemon| {
        let name = name.clone();
        let told = Incoming::Daemon {
            group,
            name,
            daemon,
        };
        match queue.try_send(told) {
            Ok(()) => Heard::Yes,
            Err(TrySendError::Full(_)) => Heard::Later,
            Err(TrySendError::Closed(_)) => Heard::Nobody,
        }
    };
    watch::begin(places, Box::new(tell)).context("a thread for a volume's daemon")
}

impl Node {
    pub(super) fn daemon(&mut self, group: usize, name: String, daemon: Daemon) {
        if let Some(group) = self.groups.get_mut(group) {
            group.daemons.insert(name, daemon);
        }
    }
}
