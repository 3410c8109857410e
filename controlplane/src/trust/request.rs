//! A key that its owner made and keeps, and what others say about it.

use std::sync::Arc;

use controlplane_api::arbiter::Hex16;
use mirror_core::types::NodeId;
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, PublicKeyData, SignatureAlgorithm,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use super::{
    Authority, CERTIFICATE_DAYS, Clusters, Identity, Subject, TrustError, WITNESS_NAME, chain,
    content, named, node_config,
};

/// A private key of this machine. It never leaves it.
pub struct OwnKey(KeyPair);

impl std::fmt::Debug for OwnKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OwnKey")
    }
}

impl PublicKeyData for OwnKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl OwnKey {
    /// A new one.
    ///
    /// # Errors
    /// [`TrustError`] if none can be made.
    pub fn generate() -> Result<Self, TrustError> {
        let made = KeyPair::generate().map_err(|error| content("a new key")(error.to_string()))?;
        Ok(Self(made))
    }

    /// One that was stored.
    ///
    /// # Errors
    /// [`TrustError::Content`] if it is no key.
    pub fn open(pem: &str) -> Result<Self, TrustError> {
        let key = KeyPair::from_pem(pem).map_err(|error| content("a key")(error.to_string()))?;
        Ok(Self(key))
    }

    /// To be stored: a secret.
    pub fn pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// A signing request (PKCS #10, PEM): asks for a certificate, and proves that the key is here.
    ///
    /// # Errors
    /// [`TrustError`] if nothing can be signed.
    pub fn request(&self) -> Result<String, TrustError> {
        let failed = content("a signing request");
        let request = CertificateParams::default()
            .serialize_request(&self.0)
            .map_err(|error| failed(error.to_string()))?;
        request.pem().map_err(|error| failed(error.to_string()))
    }

    /// A certificate of a witness, signed by itself.
    ///
    /// # Errors
    /// [`TrustError`] if nothing can be signed.
    pub fn witness_certificate(&self) -> Result<String, TrustError> {
        let failed = content("the witness's certificate");
        let mut params = CertificateParams::new(vec![WITNESS_NAME.to_string()])
            .map_err(|error| failed(error.to_string()))?;
        params
            .distinguished_name
            .push(DnType::CommonName, "Lockstep witness");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let signed = params
            .self_signed(&self.0)
            .map_err(|error| failed(error.to_string()))?;
        Ok(signed.pem())
    }
}

impl Authority {
    /// A certificate for a node by its signing request. Of the request only the key counts: what the certificate says
    /// is the authority's own word.
    ///
    /// # Errors
    /// [`TrustError::Content`] if it is no request, is not signed by its key, or the key is of another kind than ours.
    pub fn sign(&self, node: NodeId, request: &str) -> Result<String, TrustError> {
        self.sign_for(Subject::Node(node), request, CERTIFICATE_DAYS)
    }
}

/// Whom a certificate names, if this authority signed it.
///
/// # Errors
/// [`TrustError::Content`] if it did not.
pub fn check_certificate(
    certificate: &str,
    authority: &str,
) -> Result<(Hex16, NodeId), TrustError> {
    let failed = content("a node's certificate");
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes())
        .map_err(|error| failed(error.to_string()))?;
    let (cluster, node) =
        named(&certificate).ok_or_else(|| failed("it names no node".to_string()))?;
    // Exactly as a witness will look at it.
    let clusters = Arc::new(Clusters::default());
    clusters.admit(cluster, authority)?;
    clusters
        .of(&certificate)
        .and_then(|verifier| verifier.verify_client_cert(&certificate, &[], UnixTime::now()))
        .map_err(|error| failed(error.to_string()))?;
    Ok((cluster, node))
}

/// The same, and the key belongs to the certificate.
///
/// # Errors
/// [`TrustError::Content`].
pub fn check_node(identity: &Identity, authority: &str) -> Result<(Hex16, NodeId), TrustError> {
    let named = check_certificate(&identity.certificate, authority)?;
    node_config(identity, authority)?;
    Ok(named)
}

/// Whether the certificate is the one of this node of this cluster: a node that is renamed in `cluster.toml` may get
/// another number.
///
/// # Errors
/// [`TrustError::Content`].
pub fn check_own(identity: &Identity, this: (Hex16, NodeId)) -> Result<(), TrustError> {
    let failed = content("a node's certificate");
    let (certificate, _) = super::parse(identity)?;
    let (cluster, node) =
        named(&certificate).ok_or_else(|| failed("it names no node".to_string()))?;
    if (cluster, node) == this {
        return Ok(());
    }
    let why = format!(
        "it names node {} of cluster {cluster}; by cluster.toml and cluster.key this is node {} of cluster {} \
         (the nodes are numbered in the order of their names)",
        node.number(),
        this.1.number(),
        this.0
    );
    Err(failed(why))
}

/// Whether this is the certificate of a witness, and nothing else.
///
/// # Errors
/// [`TrustError::Content`] if it is not.
pub fn check_witness(certificate: &str) -> Result<(), TrustError> {
    let failed = content("the witness's certificate");
    let certificates = chain(certificate)?;
    let [certificate] = certificates.as_slice() else {
        return Err(failed(format!("{} of them", certificates.len())));
    };
    let name = ServerName::try_from(WITNESS_NAME).map_err(|error| failed(error.to_string()))?;
    webpki::EndEntityCert::try_from(certificate)
        .and_then(|parsed| parsed.verify_is_valid_for_subject_name(&name))
        .map_err(|error| failed(error.to_string()))
}
