//! Somebody who says what a test wants, in any form.

use std::sync::Arc;

use controlplane::join::Token;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::beds::*;

/// Trusts whoever is there: only a test does.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = default_provider();
        provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Says what a test wants, in any form.
pub(crate) struct Raw(pub(crate) TlsStream<TcpStream>);

impl Raw {
    pub(crate) async fn to(door: &Door) -> Raw {
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody))
            .with_no_client_auth();
        let stream = TcpStream::connect(&door.address).await.expect("connected");
        let name = ServerName::try_from("a.b").expect("a name");
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream);
        Raw(stream.await.expect("TLS"))
    }

    pub(crate) async fn bytes(&mut self, length: u32, text: &[u8]) {
        let bytes = [&length.to_be_bytes(), text].concat();
        self.0.write_all(&bytes).await.expect("sent");
        self.0.flush().await.expect("sent");
    }

    pub(crate) async fn says(&mut self, word: &Value) {
        let text = word.to_string();
        let length = u32::try_from(text.len()).expect("short");
        self.bytes(length, text.as_bytes()).await;
    }

    /// The next word; `None`: the other end hung up.
    pub(crate) async fn hears(&mut self) -> Option<Value> {
        let length = self.0.read_u32().await.ok()?;
        let mut text = vec![0; usize::try_from(length).expect("short")];
        self.0.read_exact(&mut text).await.ok()?;
        Some(serde_json::from_slice(&text).expect("JSON"))
    }
}

pub(crate) fn hello(token: &Token) -> Value {
    let secret: String = token
        .secret
        .0
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    json!({ "say": "hello", "version": 1, "secret": secret })
}
