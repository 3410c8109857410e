//! With what the peer may prove that it belongs to the cluster, while its secrets are rotated.

use crate::auth;
use crate::keys::Keys;

use super::Volume;
use super::session::Session;

impl Volume {
    /// A step of a rotation is durable on this node.
    pub(super) fn take_keys(&mut self, keys: Keys) {
        if keys.cluster() == self.settings.keys.cluster() {
            self.settings.keys = keys;
        }
    }
}

impl Session {
    /// Whether the other end knows one of the secrets that are accepted.
    pub(super) fn is_proved(&self, keys: &Keys, proof: &[u8; 32]) -> bool {
        let mut accepted = keys.accepted();
        accepted.any(|key| auth::proofs_equal(&self.proof(key, self.other_end()), proof))
    }
}
