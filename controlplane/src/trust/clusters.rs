//! What a witness knows of its clusters: whom they trust, and what it shows them.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use controlplane_api::arbiter::Hex16;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};

use super::{
    Identity, TrustError, chain, content, named, parse, provider, remember_nobody, roots, witness,
};

/// The authorities of all clusters that a witness serves.
#[derive(Debug, Default)]
pub struct Clusters {
    known: RwLock<BTreeMap<Hex16, Known>>,
    /// What the witness shows a cluster that certified it.
    shown: RwLock<BTreeMap<Hex16, Arc<CertifiedKey>>>,
}

/// A cluster's authorities.
#[derive(Debug)]
struct Known {
    verifier: Arc<dyn ClientCertVerifier>,
    authorities: Vec<CertificateDer<'static>>,
    /// How often somebody has been trusted no more.
    generation: u64,
}

impl Clusters {
    /// Serves a cluster from now on: whom one of these authorities certified.
    ///
    /// # Errors
    /// [`TrustError::Content`] if it is no certificate of an authority.
    pub fn admit(&self, cluster: Hex16, authority: &str) -> Result<(), TrustError> {
        let authorities = chain(authority)?;
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots(authority)?))
            .build()
            .map_err(|error| content("an authority")(error.to_string()))?;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let generation = known.get(&cluster).map_or(0, |before| {
            let stay = |one| authorities.contains(one);
            before.generation + u64::from(!before.authorities.iter().all(stay))
        });
        let now = Known {
            verifier,
            authorities,
            generation,
        };
        known.insert(cluster, now);
        Ok(())
    }

    /// Whether somebody who showed this certificate may still speak. `checked`: when that was looked at last.
    ///
    /// # Errors
    /// [`TrustError::Content`] if the authority that signed it is trusted no more.
    pub fn still(
        &self,
        certificate: &CertificateDer<'_>,
        checked: &mut Option<u64>,
    ) -> Result<(), TrustError> {
        let failed = content("who speaks");
        let over = |why: rustls::Error| failed(format!("is trusted no more: {why}"));
        let (verifier, generation) = self.known_of(certificate).map_err(over)?;
        if *checked != Some(generation) {
            let verified = verifier.verify_client_cert(certificate, &[], UnixTime::now());
            verified.map_err(over)?;
            *checked = Some(generation);
        }
        Ok(())
    }

    /// What this cluster is shown; `None`: what all others are shown, too.
    ///
    /// # Errors
    /// [`TrustError::Content`] if it is no certificate, or its key is another one.
    pub fn show(&self, cluster: Hex16, identity: Option<&Identity>) -> Result<(), TrustError> {
        let shown = identity.map(certified).transpose()?;
        if let Ok(mut all) = self.shown.write() {
            match shown {
                Some(shown) => all.insert(cluster, Arc::new(shown)),
                None => all.remove(&cluster),
            };
        }
        Ok(())
    }

    pub(super) fn of(
        &self,
        certificate: &CertificateDer<'_>,
    ) -> Result<Arc<dyn ClientCertVerifier>, rustls::Error> {
        Ok(self.known_of(certificate)?.0)
    }

    fn known_of(
        &self,
        certificate: &CertificateDer<'_>,
    ) -> Result<(Arc<dyn ClientCertVerifier>, u64), rustls::Error> {
        let stranger = || rustls::Error::General("a certificate of no cluster here".to_string());
        let (cluster, _) = named(certificate).ok_or_else(stranger)?;
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let known = known.get(&cluster).ok_or_else(stranger)?;
        Ok((Arc::clone(&known.verifier), known.generation))
    }
}

/// Checks a node's certificate against the authority of the cluster that it names.
#[derive(Debug)]
struct NodeVerifier {
    clusters: Arc<Clusters>,
    any: Arc<rustls::crypto::CryptoProvider>,
}

impl ClientCertVerifier for NodeVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.clusters
            .of(end_entity)?
            .verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 only".to_string()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.any.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.any
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// What a witness shows: to a cluster that certified it what that one knows, to all others its own certificate.
#[derive(Debug)]
struct Shown {
    clusters: Arc<Clusters>,
    own: Arc<CertifiedKey>,
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let cluster = hello.server_name().and_then(witness::cluster_of);
        let of_cluster = cluster.and_then(|cluster| {
            let all = self.clusters.shown.read().ok()?;
            all.get(&cluster).cloned()
        });
        Some(of_cluster.unwrap_or_else(|| Arc::clone(&self.own)))
    }
}

fn certified(identity: &Identity) -> Result<CertifiedKey, TrustError> {
    let (certificate, key) = parse(identity)?;
    CertifiedKey::from_der(vec![certificate], key, &provider())
        .map_err(|error| content("a certificate and its key")(error.to_string()))
}

/// TLS of a witness.
///
/// # Errors
/// [`TrustError::Content`] if the identity is none.
pub fn witness_config(
    identity: &Identity,
    clusters: Arc<Clusters>,
) -> Result<ServerConfig, TrustError> {
    let failed = content("the witness's TLS");
    let shown = Shown {
        clusters: Arc::clone(&clusters),
        own: Arc::new(certified(identity)?),
    };
    let verifier = NodeVerifier {
        clusters,
        any: provider(),
    };
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| failed(error.to_string()))?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(shown));
    Ok(remember_nobody(config))
}
