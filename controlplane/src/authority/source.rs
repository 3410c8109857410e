//! The authority where its key is: `authority/authority.pem` and `authority.key`. While it changes both have two, the last one first.

use std::io;
use std::path::{Path, PathBuf};

use controlplane_api::arbiter::Hex16;
use controlplane_api::trust::TrustAsk;
use controlplane_core::authority::{Print, Standing};
use mirror_core::admin::Problem;

use super::{CERTIFICATE_MODE, KEY_MODE, hex, told};
use crate::durable::replace;
use crate::trust::{Authority, CERTIFICATE_DAYS, Signers, Subject, TrustError};

/// The directory of an authority.
pub struct Source {
    directory: PathBuf,
    name: String,
    cluster: Hex16,
}

impl Source {
    /// On the node of this name.
    pub fn new(directory: &Path, name: &str, cluster: Hex16) -> Self {
        Self {
            directory: directory.to_path_buf(),
            name: name.to_string(),
            cluster,
        }
    }

    fn unusable(&self, why: &impl std::fmt::Display) -> Problem {
        told::files(&self.name, why)
    }

    /// Who can sign here; `None`: nobody, the other node may.
    ///
    /// # Errors
    /// LS6181.
    pub fn signers(&self) -> Result<Option<Signers>, Problem> {
        Signers::read(&self.directory, self.cluster).map_err(|why| self.unusable(&why))
    }

    /// The next authority, if a change has begun and this node does not trust it yet.
    ///
    /// # Errors
    /// LS6181: what is here signed nothing that this node trusts.
    pub fn next(&self, signers: &Signers, own: Standing) -> Result<Option<Print>, Problem> {
        let prints: Result<Vec<Print>, TrustError> =
            signers.all().iter().map(Authority::print).collect();
        let prints = prints.map_err(|why| self.unusable(&why))?;
        match (own, prints.as_slice()) {
            (Standing::Settled(one), [only]) if one == *only => {
                // A crash left the key of one that is over, or of one that never began.
                if signers.has_more_keys() {
                    self.put("authority.key", &signers.all()[0].key(), KEY_MODE)?;
                }
                Ok(None)
            }
            (Standing::Settled(one), [last, next]) if one == *last => Ok(Some(*next)),
            // The last step, of which not all have been heard yet.
            (Standing::Settled(one), [_, next]) if one == *next => Ok(None),
            (Standing::Trusts { last, next } | Standing::Shows { last, next }, [one, two])
                if (last, next) == (*one, *two) =>
            {
                Ok(None)
            }
            _ => Err(self.unusable(&format!(
                "{} is not the authority that is trusted here",
                self.directory.join("authority.pem").display()
            ))),
        }
    }

    /// Makes the next authority: a change has begun when that is durable. Its print.
    ///
    /// # Errors
    /// LS6181; nothing was changed, or it has begun.
    pub fn begin(&self, signers: &Signers) -> Result<Print, Problem> {
        let [last] = signers.all() else {
            return Err(self.unusable(&"there are two authorities already"));
        };
        let (next, made) = Authority::create(self.cluster).map_err(|why| self.unusable(&why))?;
        let print = next.print().map_err(|why| self.unusable(&why))?;
        // Its key first: one that no certificate belongs to is nothing.
        self.put("authority.key", &[last.key(), made.key].concat(), KEY_MODE)?;
        let both = [last.certificate(), made.certificate.as_str()].concat();
        self.put("authority.pem", &both, CERTIFICATE_MODE)?;
        Ok(print)
    }

    /// Whether this node has gone the last step, while others may have to.
    pub fn is_ending(signers: &Signers, own: Standing) -> bool {
        own.is_settled() && signers.all().len() > 1 && signers.next() == Some(own.shown())
    }

    /// The last one is over, for all members.
    ///
    /// # Errors
    /// LS6181.
    pub fn finish(&self, signers: &Signers) -> Result<(), Problem> {
        let [_, next] = signers.all() else {
            return Ok(());
        };
        self.put("authority.pem", next.certificate(), CERTIFICATE_MODE)?;
        self.put("authority.key", &next.key(), KEY_MODE)
    }

    fn put(&self, name: &str, text: &str, mode: u32) -> Result<(), Problem> {
        let path = self.directory.join(name);
        let put: io::Result<()> = replace(&path, text.as_bytes(), mode);
        put.map_err(|error| self.unusable(&format!("{}: {error}", path.display())))
    }

    /// What a member is asked so that it comes from one place to the next. `request`: for which key, if it needs a certificate;
    /// `witness`: what the witness shows, for a node. `None`: the request has to be asked for first.
    ///
    /// # Errors
    /// LS6181, LS6185.
    pub fn step(
        &self,
        signers: &Signers,
        (from, to): (Standing, Standing),
        (who, request): (Subject, Option<&str>),
        witness: Option<&str>,
    ) -> Result<Option<TrustAsk>, Problem> {
        let witness = witness.map(str::to_string);
        let of = |print| {
            let found = signers.of(print);
            found.ok_or_else(|| self.unusable(&"the key of an authority is not here any more"))
        };
        Ok(match (from, to) {
            (_, Standing::Trusts { last, next }) => {
                let authority = of(next)?.certificate().to_string();
                let said = of(last)?.endorse(&authority).map_err(told::fault)?;
                Some(TrustAsk::Trust {
                    authority,
                    endorsement: hex(&said),
                })
            }
            (_, Standing::Shows { next, .. }) => match request {
                None => None,
                Some(request) => Some(TrustAsk::Show {
                    certificate: certificate(of(next)?, who, request)?,
                    witness,
                }),
            },
            (Standing::Shows { last, next }, Standing::Settled(_)) => {
                let said = of(next)?.retire(last).map_err(told::fault)?;
                Some(TrustAsk::Settle {
                    authority: Hex16(next.0),
                    retirement: hex(&said),
                    witness,
                })
            }
            (_, Standing::Settled(_)) => return Err(told::fault("a step back")),
        })
    }
}

/// Of this authority, for the key of the request.
///
/// # Errors
/// LS6185.
pub fn certificate(authority: &Authority, who: Subject, request: &str) -> Result<String, Problem> {
    let signed = authority.sign_for(who, request, CERTIFICATE_DAYS);
    signed.map_err(told::refused)
}
