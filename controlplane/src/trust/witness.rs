//! A witness that a cluster's authority certified, and one that is known by its own certificate alone.

use std::sync::Arc;

use controlplane_api::arbiter::Hex16;
use mirror_core::types::NodeId;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};

use super::{
    Identity, TrustError, WITNESS_NAME, WITNESS_SUFFIX, check_certificate, content, parse,
    provider, roots,
};

/// Who is certified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// A node.
    Node(NodeId),
    /// The cluster's witness.
    Witness,
}

/// The name under which a cluster asks for its witness. A witness of an earlier release does not look at it.
pub(crate) fn witness_name(cluster: Hex16) -> String {
    format!("{cluster}.{WITNESS_SUFFIX}")
}

/// The cluster of such a name.
pub(super) fn cluster_of(name: &str) -> Option<Hex16> {
    let rest = name.strip_suffix(WITNESS_SUFFIX)?.strip_suffix('.')?;
    rest.parse().ok()
}

/// Whether one of these authorities signed this certificate, for exactly this one of this cluster.
///
/// # Errors
/// [`TrustError::Content`] if not.
pub fn check_named(
    certificate: &str,
    authority: &str,
    cluster: Hex16,
    who: Named,
) -> Result<(), TrustError> {
    let failed = content("a certificate");
    match who {
        Named::Node(node) => {
            if check_certificate(certificate, authority)? == (cluster, node) {
                return Ok(());
            }
            Err(failed("it names another node".to_string()))
        }
        Named::Witness => {
            let certificate = CertificateDer::from_pem_slice(certificate.as_bytes())
                .map_err(|error| failed(error.to_string()))?;
            let name = ServerName::try_from(witness_name(cluster))
                .map_err(|error| failed(error.to_string()))?;
            verifier(authority)?
                .verify_server_cert(&certificate, &[], &name, &[], UnixTime::now())
                .map(drop)
                .map_err(|error| failed(error.to_string()))
        }
    }
}

fn verifier(trusted: &str) -> Result<Arc<WebPkiServerVerifier>, TrustError> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots(trusted)?), provider())
        .build()
        .map_err(|error| content("an authority")(error.to_string()))
}

/// Takes a witness that the cluster's authority certified, and the one whose own certificate the cluster was given.
#[derive(Debug)]
struct WitnessVerifier {
    certified: Arc<WebPkiServerVerifier>,
    pinned: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerCertVerifier for WitnessVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certified =
            self.certified
                .verify_server_cert(end_entity, intermediates, server_name, ocsp, now);
        match (&self.pinned, certified) {
            (Some(pinned), Err(_)) => {
                let name = ServerName::try_from(WITNESS_NAME)
                    .map_err(|error| rustls::Error::General(error.to_string()))?;
                pinned.verify_server_cert(end_entity, intermediates, &name, ocsp, now)
            }
            (_, certified) => certified,
        }
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
        self.certified.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.certified.supported_verify_schemes()
    }
}

/// TLS of a node that asks its cluster's witness, by [`witness_name`]. `witness` is what the cluster was given when the witness
/// joined: it counts while it is the witness's own certificate, signed by itself; one of the authority says nothing more.
///
/// # Errors
/// [`TrustError::Content`] if one of them is none.
pub fn witness_client_config(
    identity: &Identity,
    authority: &str,
    witness: Option<&str>,
) -> Result<ClientConfig, TrustError> {
    let failed = content("the node's TLS");
    let verifier = WitnessVerifier {
        certified: verifier(authority)?,
        pinned: witness.map(verifier).transpose()?,
    };
    let (certificate, key) = parse(identity)?;
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| failed(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(vec![certificate], key)
        .map_err(|error| failed(error.to_string()))
}
