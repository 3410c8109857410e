//! An authority and the one after it: the last one says which comes next, and the next one says when the last one is over. So no
//! member takes anybody's word for it, that of a node neither.

use std::path::Path;

use controlplane_api::arbiter::Hex16;
use controlplane_core::authority::Print;
use rcgen::{CertificateSigningRequestParams, PKCS_ECDSA_P256_SHA256, SigningKey};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};

use super::pem::{belongs, certificates, keys};
use super::{
    Authority, Identity, OwnKey, Subject, TrustError, content, ends_at, lifetime, provider, roots,
};

/// What is signed begins so: nothing else that an authority signs does.
const NEXT: &[u8] = b"lockstep-authority-next/1\0";
const OVER: &[u8] = b"lockstep-authority-over/1\0";

/// Names an authority by its certificate.
///
/// # Errors
/// [`TrustError::Content`] if it is none.
pub fn print_of(certificate: &str) -> Result<Print, TrustError> {
    let der = der_of(certificate)?;
    let mut print = [0; 16];
    print.copy_from_slice(&blake3::hash(&der).as_bytes()[..16]);
    Ok(Print(print))
}

fn der_of(certificate: &str) -> Result<CertificateDer<'static>, TrustError> {
    CertificateDer::from_pem_slice(certificate.as_bytes())
        .map_err(|error| content("a certificate")(error.to_string()))
}

/// Whether this authority signed the certificate, whatever time it is.
///
/// # Errors
/// [`TrustError::Content`] if one of both is none.
pub fn signed_by(certificate: &str, authority: &str) -> Result<bool, TrustError> {
    let failed = content("a certificate");
    let der = der_of(certificate)?;
    let parsed =
        webpki::EndEntityCert::try_from(&der).map_err(|error| failed(error.to_string()))?;
    let last = ends_at(certificate)?
        .min(ends_at(authority)?)
        .min(lifetime::now());
    let time = std::time::Duration::from_secs(u64::try_from(last).unwrap_or(0));
    let roots = roots(authority)?;
    let algorithms = provider().signature_verification_algorithms;
    // Nodes show it to both kinds of ends, a witness to one.
    let usage = webpki::KeyUsage::server_auth();
    let time = UnixTime::since_unix_epoch(time);
    let path = parsed.verify_for_usage(algorithms.all, &roots.roots, &[], time, usage, None, None);
    Ok(path.is_ok())
}

fn statement(kind: &[u8], cluster: Hex16, what: &[u8]) -> Vec<u8> {
    [kind, &cluster.0, what].concat()
}

fn check(
    authority: &str,
    said: &[u8],
    signature: &[u8],
    what: &'static str,
) -> Result<(), TrustError> {
    let der = der_of(authority)?;
    webpki::EndEntityCert::try_from(&der)
        .and_then(|parsed| {
            parsed.verify_signature(webpki::ring::ECDSA_P256_SHA256, said, signature)
        })
        .map_err(|error| content(what)(error.to_string()))
}

/// Whether `last` said that `next` comes after it.
///
/// # Errors
/// [`TrustError::Content`] if it did not.
pub fn check_endorsement(
    (last, next): (&str, &str),
    cluster: Hex16,
    signature: &[u8],
) -> Result<(), TrustError> {
    let said = statement(NEXT, cluster, &der_of(next)?);
    check(
        last,
        &said,
        signature,
        "what the last authority said of the next one",
    )
}

/// Whether `next` said that the one before it is over.
///
/// # Errors
/// [`TrustError::Content`] if it did not.
pub fn check_retirement(
    (last, next): (Print, &str),
    cluster: Hex16,
    signature: &[u8],
) -> Result<(), TrustError> {
    let said = statement(OVER, cluster, &last.0);
    check(
        next,
        &said,
        signature,
        "what the next authority said of the last one",
    )
}

impl Authority {
    /// Names it.
    ///
    /// # Errors
    /// [`TrustError`] if its certificate is none.
    pub fn print(&self) -> Result<Print, TrustError> {
        print_of(&self.certificate)
    }

    /// Says that this one comes next.
    ///
    /// # Errors
    /// [`TrustError`] if nothing can be signed.
    pub fn endorse(&self, next: &str) -> Result<Vec<u8>, TrustError> {
        self.say(&statement(NEXT, self.cluster, &der_of(next)?))
    }

    /// Says that the one before it is over.
    ///
    /// # Errors
    /// [`TrustError`] if nothing can be signed.
    pub fn retire(&self, last: Print) -> Result<Vec<u8>, TrustError> {
        self.say(&statement(OVER, self.cluster, &last.0))
    }

    fn say(&self, said: &[u8]) -> Result<Vec<u8>, TrustError> {
        let signed = self.issuer.key().sign(said);
        signed.map_err(|error| content("a statement of the authority")(error.to_string()))
    }

    /// A certificate by a signing request, for a node or the witness. Of the request only the key counts.
    ///
    /// # Errors
    /// [`TrustError::Content`] if it is no request, is not signed by its key, or the key is of another kind than ours.
    pub fn sign_for(&self, who: Subject, request: &str, days: i64) -> Result<String, TrustError> {
        let failed = content("a signing request");
        let request = CertificateSigningRequestParams::from_pem(request)
            .map_err(|error| failed(error.to_string()))?;
        if request.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(failed("its key is not of P-256".to_string()));
        }
        self.certify_for(who, &request.public_key, days)
    }
}

/// The authorities whose keys are here: one, or the last and the next one.
#[derive(Debug)]
pub struct Signers {
    all: Vec<Authority>,
    keys: usize,
}

impl Signers {
    /// From `authority.pem` and `authority.key` of a directory; `None` if there is no key.
    ///
    /// # Errors
    /// [`TrustError`] if something does not fit together.
    pub fn read(directory: &Path, cluster: Hex16) -> Result<Option<Self>, TrustError> {
        let (path, key) = (
            directory.join("authority.pem"),
            directory.join("authority.key"),
        );
        if !key.exists() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&path).map_err(|source| {
            let what = format!("cannot read {}", path.display());
            TrustError::File { what, source }
        })?;
        let keys = keys(&crate::key::read_text(&key)?);
        let mut all = Vec::new();
        for certificate in certificates(&text)? {
            let mut own = None;
            for key in &keys {
                if belongs(&certificate, &OwnKey::open(key)?)? {
                    own = Some(key.clone());
                }
            }
            let key = own.ok_or_else(|| {
                let why = format!("it has no key for what is in {}", path.display());
                content("authority.key")(why)
            })?;
            all.push(Authority::open(cluster, &Identity { certificate, key })?);
        }
        let keys = keys.len();
        Ok(Some(Self { all, keys }))
    }

    /// The last one first.
    pub fn into_all(self) -> Vec<Authority> {
        self.all
    }

    /// The same, to look at.
    pub fn all(&self) -> &[Authority] {
        &self.all
    }

    /// Whether there are keys that belong to none of them.
    pub fn has_more_keys(&self) -> bool {
        self.keys > self.all.len()
    }

    /// The one that is there last.
    pub fn next(&self) -> Option<Print> {
        self.all.last()?.print().ok()
    }

    /// The one with this name.
    pub fn of(&self, print: Print) -> Option<&Authority> {
        let mut all = self.all.iter();
        all.find(|authority| authority.print().is_ok_and(|own| own == print))
    }
}
