//! Copies and links of the group's volumes: whether the other node could take them over now.

use controlplane_api::Client;
use mirror_core::admin::{LinkState, Role, Status};

use super::Ill;

/// The volumes of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Their names.
    pub volumes: Vec<String>,
}

impl Mirror {
    pub(super) fn look(&self) -> Result<(), Ill> {
        for volume in &self.volumes {
            let status = Client::of_volume(volume).status();
            let status = status.map_err(|source| Ill::Daemon {
                volume: volume.clone(),
                source,
            })?;
            if let Some(lacks) = lacks(&status) {
                return Err(Ill::Copies {
                    volume: volume.clone(),
                    lacks,
                });
            }
        }
        Ok(())
    }
}

/// What a volume lacks to survive the loss of this node.
fn lacks(status: &Status) -> Option<String> {
    let (node, peer) = (&status.node, &status.peer);
    if status.role != Role::Active {
        return Some(format!("it is not served by {node}"));
    }
    if status.link.state != LinkState::Up {
        return Some(format!("the mirror link to {peer} is down"));
    }
    let mut both = [peer, node].into_iter();
    let stale = both.find(|node| !status.view.insync.contains(node));
    stale.map(|node| format!("the copy on {node} is not up to date"))
}
