//! TLS of an invitation: a certificate that lives as long as the invitation, and nothing that trusts anything else.

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme,
};

use super::token::Fingerprint;
use crate::trust::{Identity, TrustError, parse, provider};

/// The name in the certificate; nobody looks at it.
pub(super) const INVITATION_NAME: &str = "invitation.lockstep.internal";

fn failed(error: impl std::fmt::Display) -> TrustError {
    TrustError::Content {
        what: "the invitation's TLS",
        why: error.to_string(),
    }
}

/// What the inviting end shows: a key and a certificate of this invitation alone.
#[derive(Clone)]
pub struct Doorplate {
    pub(super) config: Arc<ServerConfig>,
    /// Names the certificate.
    pub fingerprint: Fingerprint,
}

impl Doorplate {
    /// A new one.
    ///
    /// # Errors
    /// [`TrustError`] if no key can be made.
    pub fn new() -> Result<Self, TrustError> {
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = CertificateParams::new(vec![INVITATION_NAME.to_string()])
            .and_then(|params| params.self_signed(&key))
            .map_err(failed)?;
        let identity = Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        };
        let (chain, key) = parse(&identity)?;
        let fingerprint = Fingerprint::of(&chain);
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(failed)?
            .with_no_client_auth()
            .with_single_cert(vec![chain], key)
            .map_err(failed)?;
        Ok(Self {
            config: Arc::new(config),
            fingerprint,
        })
    }
}

/// TLS that trusts exactly one certificate.
///
/// # Errors
/// [`TrustError`] if there is no TLS.
pub(super) fn client_config(fingerprint: Fingerprint) -> Result<ClientConfig, TrustError> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(failed)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(OnlyThis {
            fingerprint,
            any: provider(),
        }))
        .with_no_client_auth();
    Ok(config)
}

/// What [`OnlyThis`] says of every other certificate.
pub(super) const ANOTHER: rustls::Error =
    rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);

/// Trusts the certificate that the token names, whatever it says.
#[derive(Debug)]
struct OnlyThis {
    fingerprint: Fingerprint,
    any: Arc<rustls::crypto::CryptoProvider>,
}

impl ServerCertVerifier for OnlyThis {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if Fingerprint::of(end_entity) == self.fingerprint {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(ANOTHER)
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
