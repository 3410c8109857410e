//! Whom a witness trusts in a cluster, and what it shows it: `CLUSTER.cluster`, replaced whole. The registers are in another file.

use std::fs;
use std::path::PathBuf;

use controlplane_api::arbiter::Hex16;
use controlplane_api::trust::{TrustAnswer, TrustAsk};
use mirror_core::admin::Problem;
use serde::{Deserialize, Serialize};

use super::Witness;
use crate::authority::{Holding, KEY_MODE, Whose, told};
use crate::durable::{replace, sync};
use crate::trust::{Clusters, Identity, Named, TrustError, certificates};

/// What a witness knows of a cluster: `CLUSTER.cluster` in its directory. It has keys in it.
#[derive(Default, Serialize, Deserialize)]
pub struct Admission {
    /// The layout of the file.
    pub version: u32,
    /// The cluster's nodes, one bit each.
    pub members: u8,
    /// The certificate of the cluster's authority, or of the last and the next one.
    pub authority: String,
    /// What the authority certified; without it the witness shows its own certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown: Option<Certified>,
    /// A key for the next certificate: a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
}

/// A certificate and its key.
#[derive(Clone, Serialize, Deserialize)]
pub struct Certified {
    certificate: String,
    key: String,
}

impl std::fmt::Debug for Admission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admission")
            .field("members", &self.members)
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Certified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Certified")
    }
}

impl Admission {
    /// What the authority certified.
    pub(super) fn identity(&self) -> Option<Identity> {
        let Certified { certificate, key } = self.shown.clone()?;
        Some(Identity { certificate, key })
    }

    pub(super) fn holding(&self) -> Result<Holding, TrustError> {
        Ok(Holding {
            trusted: certificates(&self.authority)?,
            shown: self.identity(),
            ready: self.ready.clone(),
            witness: None,
        })
    }
}

/// It counts from now on, if all of it can be used: one authority, or the last and the next one, and a certificate of theirs.
pub(super) fn count(
    trusted: &Clusters,
    cluster: Hex16,
    holding: &Holding,
) -> Result<(), TrustError> {
    holding.standing()?;
    trusted.admit(cluster, &holding.authorities())?;
    trusted.show(cluster, holding.shown.as_ref())
}

impl Witness {
    fn admission_path(&self, cluster: Hex16) -> PathBuf {
        self.directory.join(format!("{cluster}.cluster"))
    }

    /// What is on the disk is made durable, and counts from now on.
    fn adopt(&self, cluster: Hex16) -> Result<(Admission, Holding), Problem> {
        let path = self.admission_path(cluster);
        let refused = |why: &dyn std::fmt::Display| {
            told::files("witness", &format!("{}: {why}", path.display()))
        };
        let text = fs::read_to_string(&path).and_then(|text| sync(&path).map(|()| text));
        let text = text.map_err(|error| refused(&error))?;
        let admission: Admission = serde_json::from_str(&text).map_err(|error| refused(&error))?;
        let holding = admission.holding().map_err(|error| refused(&error))?;
        count(&self.trusted, cluster, &holding).map_err(|error| refused(&error))?;
        Ok((admission, holding))
    }

    fn carry_out_trust(&self, cluster: Hex16, ask: &TrustAsk) -> Result<Holding, Problem> {
        let who = Named::Witness;
        let (admission, holding) = self.adopt(cluster)?;
        let Some(next) = holding.after(Whose { cluster, who }, ask)? else {
            return Ok(holding);
        };
        // What cannot be used is not written.
        count(&Clusters::default(), cluster, &next).map_err(told::refused)?;
        let certified = |identity: Identity| Certified {
            certificate: identity.certificate,
            key: identity.key,
        };
        let admission = Admission {
            authority: next.authorities(),
            shown: next.shown.map(certified),
            ready: next.ready,
            ..admission
        };
        let path = self.admission_path(cluster);
        let text = serde_json::to_string_pretty(&admission).map_err(told::fault)?;
        replace(&path, text.as_bytes(), KEY_MODE)
            .map_err(|error| told::files("witness", &format!("{}: {error}", path.display())))?;
        let (_, now) = self.adopt(cluster)?;
        if now.trusted != holding.trusted || now.shown != holding.shown {
            tracing::info!(code = "LS6176", %cluster, trusted = now.trusted.len(), "what this cluster trusts and is shown has changed");
        }
        Ok(now)
    }

    /// A question of a node that this cluster's authority certified. What it asks for has to be said by the authority itself.
    pub(crate) fn trust(&self, cluster: Hex16, ask: &TrustAsk) -> TrustAnswer {
        let done = self.carry_out_trust(cluster, ask);
        let problem = done.as_ref().err().cloned();
        let holding = done.or_else(|_| self.adopt(cluster).map(|(_, holding)| holding));
        let answer = holding.and_then(|holding| holding.answer().map_err(told::fault));
        match answer {
            Ok(answer) => TrustAnswer { problem, ..answer },
            Err(why) => TrustAnswer {
                problem: problem.or(Some(why)),
                ..TrustAnswer::default()
            },
        }
    }
}
