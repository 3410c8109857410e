//! Who is who: the cluster's own authority, a certificate for each node, and the witness's own certificate.
//!
//! A node's certificate names its cluster and its number, and is signed by the cluster's authority; nothing else says
//! who asks. A witness serves many clusters: it finds the cluster in the certificate, then checks the certificate
//! against that cluster's authority alone, so that one cluster can never speak for another. The witness's certificate is
//! signed by itself, and pinned: a node trusts exactly that one, and what the authority certifies for exactly that one.

use std::io;
use std::path::Path;
use std::sync::Arc;

use controlplane_api::arbiter::Hex16;
use mirror_core::types::NodeId;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use thiserror::Error;

mod clusters;
mod lifetime;
mod pem;
mod request;
mod succession;
mod witness;

pub use clusters::{Clusters, witness_config};
pub use lifetime::{AUTHORITY_DAYS, CERTIFICATE_DAYS, DAY_SECONDS, day, ends_at, now};
pub(crate) use pem::{belongs, certificates, key_of, keys, only_certificate};
pub use request::{OwnKey, check_certificate, check_node, check_own, check_witness};
pub use succession::{Signers, check_endorsement, check_retirement, print_of, signed_by};
pub(crate) use witness::witness_name;
pub use witness::{Lasting, Named, Subject, check_named, pinned_config, witness_client_config};

const NODE_SUFFIX: &str = "node.lockstep.internal";
const WITNESS_SUFFIX: &str = "witness.lockstep.internal";
/// The name in every witness's certificate.
pub const WITNESS_NAME: &str = "witness.lockstep.internal";

/// Why there is no trust.
#[derive(Debug, Error)]
pub enum TrustError {
    /// A file of keys or certificates.
    #[error("{what}")]
    File {
        /// What was tried, with the path.
        what: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file with a key.
    #[error(transparent)]
    Key(#[from] crate::key::KeyError),
    /// It is no certificate or key.
    #[error("{what}: {why}")]
    Content {
        /// What it should be.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
}

fn content(what: &'static str) -> impl Fn(String) -> TrustError {
    move |why| TrustError::Content { what, why }
}

/// A certificate and its key, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The key: a secret.
    pub key: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

/// The cluster's own authority.
#[derive(Debug)]
pub struct Authority {
    cluster: Hex16,
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    /// A new authority for a cluster.
    ///
    /// # Errors
    /// [`TrustError`] if no key can be made.
    pub fn create(cluster: Hex16) -> Result<(Self, Identity), TrustError> {
        Self::create_for(cluster, AUTHORITY_DAYS)
    }

    /// One that is good for so long.
    ///
    /// # Errors
    /// [`TrustError`] if no key can be made.
    pub fn create_for(cluster: Hex16, days: i64) -> Result<(Self, Identity), TrustError> {
        let failed = content("a new authority");
        let key = KeyPair::generate().map_err(|error| failed(error.to_string()))?;
        let mut params = Self::params(cluster);
        lifetime::limit(&mut params, days);
        let signed = params
            .self_signed(&key)
            .map_err(|error| failed(error.to_string()))?;
        let identity = Identity {
            certificate: signed.pem(),
            key: key.serialize_pem(),
        };
        Ok((Self::open(cluster, &identity)?, identity))
    }

    /// The authority behind a key that was stored.
    ///
    /// # Errors
    /// [`TrustError::Content`] if it is no key.
    pub fn open(cluster: Hex16, identity: &Identity) -> Result<Self, TrustError> {
        let key = KeyPair::from_pem(&identity.key)
            .map_err(|error| content("the authority's key")(error.to_string()))?;
        Ok(Self {
            cluster,
            issuer: Issuer::new(Self::params(cluster), key),
            certificate: identity.certificate.clone(),
        })
    }

    fn params(cluster: Hex16) -> CertificateParams {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, format!("Lockstep cluster {cluster}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
    }

    /// The authority's certificate, which is no secret.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Its key: a secret.
    pub(crate) fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A certificate for a node of the cluster.
    ///
    /// # Errors
    /// [`TrustError`] if no key can be made.
    pub fn issue(&self, node: NodeId) -> Result<Identity, TrustError> {
        let key = OwnKey::generate()?;
        Ok(Identity {
            certificate: self.certify(node, &key)?,
            key: key.pem(),
        })
    }

    /// Says that whoever has the private half of `key` is the node.
    fn certify(&self, node: NodeId, key: &impl PublicKeyData) -> Result<String, TrustError> {
        self.certify_for(Subject::Node(node), key, CERTIFICATE_DAYS)
    }

    fn certify_for(
        &self,
        who: Subject,
        key: &impl PublicKeyData,
        days: i64,
    ) -> Result<String, TrustError> {
        let failed = content("a certificate");
        let (names, common, usages) = match who {
            Subject::Node(node) => (
                vec![node_name(self.cluster, node)],
                format!("node {}", node.number()),
                vec![
                    ExtendedKeyUsagePurpose::ClientAuth,
                    ExtendedKeyUsagePurpose::ServerAuth,
                ],
            ),
            // It speaks for no node, and asks nobody.
            Subject::Witness(lasting) => (
                vec![
                    lasting.name(self.cluster),
                    witness::witness_name(self.cluster),
                    WITNESS_NAME.to_string(),
                ],
                "Lockstep witness".to_string(),
                vec![ExtendedKeyUsagePurpose::ServerAuth],
            ),
        };
        let mut params =
            CertificateParams::new(names).map_err(|error| failed(error.to_string()))?;
        params.distinguished_name.push(DnType::CommonName, common);
        params.extended_key_usages = usages;
        // Not longer than who signs it.
        let left = (ends_at(&self.certificate)? - now()) / DAY_SECONDS;
        lifetime::limit(&mut params, days.min(left));
        let signed = params
            .signed_by(key, &self.issuer)
            .map_err(|error| failed(error.to_string()))?;
        Ok(signed.pem())
    }
}

/// A witness's own certificate.
///
/// # Errors
/// [`TrustError`] if no key can be made.
pub fn witness_identity() -> Result<Identity, TrustError> {
    let key = OwnKey::generate()?;
    Ok(Identity {
        certificate: key.witness_certificate()?,
        key: key.pem(),
    })
}

/// The name in a node's certificate.
pub(crate) fn node_name(cluster: Hex16, node: NodeId) -> String {
    format!("n{}.{cluster}.{NODE_SUFFIX}", node.number())
}

/// Which node of which cluster a certificate names. It proves nothing by itself.
fn named(certificate: &CertificateDer<'_>) -> Option<(Hex16, NodeId)> {
    let parsed = webpki::EndEntityCert::try_from(certificate).ok()?;
    let mut names = parsed.valid_dns_names();
    let (name, None) = (names.next()?, names.next()) else {
        return None;
    };
    let rest = name.strip_suffix(NODE_SUFFIX)?.strip_suffix('.')?;
    let (node, cluster) = rest.split_once('.')?;
    let number = node.strip_prefix('n')?.parse().ok()?;
    Some((cluster.parse().ok()?, NodeId::new(number)?))
}

pub(crate) fn parse(
    identity: &Identity,
) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), TrustError> {
    let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes())
        .map_err(|error| content("a certificate")(error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())
        .map_err(|error| content("a key")(error.to_string()))?;
    Ok((certificate, key))
}

/// Of all certificates in this text.
fn roots(certificate: &str) -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(certificate)? {
        roots
            .add(certificate)
            .map_err(|error| content("a certificate")(error.to_string()))?;
    }
    Ok(roots)
}

/// Who showed a certificate once shows it again: whom the cluster trusts may have changed since.
fn remember_nobody(mut config: ServerConfig) -> ServerConfig {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config
}

pub(crate) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// TLS of a node that asks a witness: `witness` is the certificate that it trusts.
///
/// # Errors
/// [`TrustError::Content`] if one of both is none.
pub fn node_config(identity: &Identity, witness: &str) -> Result<ClientConfig, TrustError> {
    let failed = content("the node's TLS");
    let (certificate, key) = parse(identity)?;
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| failed(error.to_string()))?
        .with_root_certificates(roots(witness)?)
        .with_client_auth_cert(vec![certificate], key)
        .map_err(|error| failed(error.to_string()))
}

/// TLS between the nodes of a cluster, for the end that is called and for the one that calls: each shows its own certificate,
/// and trusts what the cluster's authority signed. Whether that is the other node, the caller asks [`peer_of`].
///
/// # Errors
/// [`TrustError::Content`] if one of both is none.
pub fn both_ways(
    identity: &Identity,
    authority: &str,
) -> Result<(ServerConfig, ClientConfig), TrustError> {
    let failed = content("the TLS between the nodes");
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(authority)?), provider())
            .build()
            .map_err(|error| failed(error.to_string()))?;
    let (certificate, key) = parse(identity)?;
    let server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| failed(error.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate], key)
        .map_err(|error| failed(error.to_string()))?;
    Ok((remember_nobody(server), node_config(identity, authority)?))
}

/// TLS of a node that asks etcd: `authority` signed etcd's certificates, `identity` is what etcd asks for, if it does.
/// Chains of several certificates are allowed in both.
///
/// # Errors
/// [`TrustError::Content`] if one of both is none.
pub fn etcd_client_config(
    authority: &str,
    identity: Option<&Identity>,
) -> Result<ClientConfig, TrustError> {
    let failed = content("the TLS for etcd");
    let mut roots = RootCertStore::empty();
    for certificate in chain(authority)? {
        roots
            .add(certificate)
            .map_err(|error| failed(error.to_string()))?;
    }
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| failed(error.to_string()))?
        .with_root_certificates(roots);
    let Some(identity) = identity else {
        return Ok(builder.with_no_client_auth());
    };
    let (_, key) = parse(identity)?;
    builder
        .with_client_auth_cert(chain(&identity.certificate)?, key)
        .map_err(|error| failed(error.to_string()))
}

fn chain(text: &str) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(content("a certificate")("there is none".to_string())),
        Err(error) => Err(content("a certificate")(error.to_string())),
    }
}

/// Who is at the other end of a connection that was accepted.
pub fn peer_of(certificates: Option<&[CertificateDer<'_>]>) -> Option<(Hex16, NodeId)> {
    named(certificates?.first()?)
}

/// Reads an identity from `NAME.pem` and `NAME.key` of a directory. The second one may have several keys, while the first one
/// is replaced.
///
/// # Errors
/// [`TrustError::File`], [`TrustError::Key`] also if others can read the key.
pub fn read_identity(directory: &Path, name: &str) -> Result<Identity, TrustError> {
    let path = directory.join(format!("{name}.pem"));
    let certificate = std::fs::read_to_string(&path).map_err(|source| TrustError::File {
        what: format!("cannot read {}", path.display()),
        source,
    })?;
    let keys = crate::key::read_text(&directory.join(format!("{name}.key")))?;
    let key = key_of(&certificate, &keys)?;
    Ok(Identity { certificate, key })
}
