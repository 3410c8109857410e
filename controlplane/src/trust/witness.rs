//! A witness that a cluster's authority certified, and one that is known by its own certificate alone.

use std::sync::Arc;

use controlplane_api::arbiter::Hex16;
use mirror_core::types::NodeId;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{
    Identity, TrustError, WITNESS_NAME, WITNESS_SUFFIX, check_certificate, content, node_config,
    parse, provider, roots,
};

/// Who is certified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// A node.
    Node(NodeId),
    /// The cluster's witness.
    Witness,
}

/// For whom a certificate is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A node.
    Node(NodeId),
    /// Exactly this witness of the cluster.
    Witness(Lasting),
}

/// Which witness it is, whatever certificate it shows: by the key of the certificate with which it joined. So a witness that was
/// replaced is another one for ever, although the authority certified it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lasting(Hex16);

/// Begins the label of a [`Lasting`] in a certificate.
const LABEL: char = 'w';

impl Lasting {
    /// Of what the cluster knows its witness by: the witness's own certificate, or one of the authority.
    ///
    /// # Errors
    /// [`TrustError::Content`] if it is neither.
    pub fn of(certificate: &str, cluster: Hex16) -> Result<Self, TrustError> {
        Ok(Self::known(certificate, cluster)?.0)
    }

    /// And whether it is the witness's own, signed by itself.
    fn known(certificate: &str, cluster: Hex16) -> Result<(Self, bool), TrustError> {
        let failed = content("the witness's certificate");
        let der = CertificateDer::from_pem_slice(certificate.as_bytes())
            .map_err(|error| failed(error.to_string()))?;
        let (_, parsed) =
            X509Certificate::from_der(&der).map_err(|error| failed(error.to_string()))?;
        let end =
            webpki::EndEntityCert::try_from(&der).map_err(|error| failed(error.to_string()))?;
        let said = parsed.tbs_certificate.as_ref();
        let signature = &parsed.signature_value.data;
        let algorithm = webpki::ring::ECDSA_P256_SHA256;
        if end.verify_signature(algorithm, said, signature).is_ok() {
            let mut short = [0; 16];
            let key = blake3::hash(parsed.public_key().raw);
            short.copy_from_slice(&key.as_bytes()[..16]);
            return Ok((Self(Hex16(short)), true));
        }
        let name = witness_name(cluster);
        let label = end.valid_dns_names().find_map(|found| {
            let label = found.strip_suffix(&name)?.strip_suffix('.')?;
            label.strip_prefix(LABEL)?.parse().ok()
        });
        let none = || failed("it does not say which witness of this cluster it is for".to_string());
        Ok((Self(label.ok_or_else(none)?), false))
    }

    /// The name that only a certificate for this one has.
    pub(super) fn name(self, cluster: Hex16) -> String {
        format!("{LABEL}{}.{}", self.0, witness_name(cluster))
    }
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

/// Takes the witness that the cluster was given, and no other one: by its own certificate, or by one in which the cluster's authority
/// says that it is this one.
#[derive(Debug)]
struct WitnessVerifier {
    certified: Arc<WebPkiServerVerifier>,
    /// What a certificate of the authority has to name; without it no witness is taken.
    name: Option<ServerName<'static>>,
    /// The witness's own certificate, if that is what the cluster has.
    pinned: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerCertVerifier for WitnessVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let unknown = || rustls::Error::General("no witness is known here".to_string());
        let name = self.name.as_ref().ok_or_else(unknown)?;
        let certified =
            self.certified
                .verify_server_cert(end_entity, intermediates, name, ocsp, now);
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

/// TLS of a node that knows its witness by that one's own certificate, whatever the authority says; `None` if `witness` is not signed
/// by itself.
///
/// # Errors
/// [`TrustError::Content`] if one of both is none.
pub fn pinned_config(
    identity: &Identity,
    (cluster, witness): (Hex16, &str),
) -> Result<Option<ClientConfig>, TrustError> {
    let (_, is_own) = Lasting::known(witness, cluster)?;
    is_own.then(|| node_config(identity, witness)).transpose()
}

/// TLS of a node that asks its cluster's witness, by [`witness_name`]. `witness` is what the cluster knows it by: its own
/// certificate counts itself; one of the authority only says which witness it is.
///
/// # Errors
/// [`TrustError::Content`] if one of them is none.
pub fn witness_client_config(
    identity: &Identity,
    authority: &str,
    (cluster, witness): (Hex16, Option<&str>),
) -> Result<ClientConfig, TrustError> {
    let failed = content("the node's TLS");
    let known = witness.map(|it| Lasting::known(it, cluster)).transpose()?;
    let name = known.map(|(lasting, _)| ServerName::try_from(lasting.name(cluster)));
    let pinned = witness.filter(|_| known.is_some_and(|(_, is_own)| is_own));
    let verifier = WitnessVerifier {
        certified: verifier(authority)?,
        name: name
            .transpose()
            .map_err(|error| failed(error.to_string()))?,
        pinned: pinned.map(verifier).transpose()?,
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
