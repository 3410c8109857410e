//! Files with several certificates, or several keys, one after the other.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::PublicKeyData;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{OwnKey, TrustError, chain, content};

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
/// Digits in a line.
const LINE: usize = 64;

/// Each block of a text, whole.
fn blocks(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut block: Option<String> = None;
    for line in text.lines() {
        if line.starts_with(BEGIN) {
            block = Some(String::new());
        }
        if let Some(open) = &mut block {
            open.push_str(line.trim_end());
            open.push('\n');
            if line.starts_with(END) {
                all.extend(block.take());
            }
        }
    }
    all
}

/// Each certificate of a text, as its own text: written anew, so that nothing else that somebody put beside it or into it comes along.
///
/// # Errors
/// [`TrustError::Content`] if there is none, or something else.
pub(crate) fn certificates(text: &str) -> Result<Vec<String>, TrustError> {
    let failed = content("certificates");
    let all = blocks(text);
    if all.is_empty() {
        return Err(failed("there is none".to_string()));
    }
    let mut found = Vec::new();
    for block in &all {
        for der in chain(block)? {
            found.push(pem_of(&der));
        }
    }
    if found.len() == all.len() && found.len() == chain(text)?.len() {
        return Ok(found);
    }
    Err(failed("there is something else between them".to_string()))
}

/// The only certificate of a text, in the same way. What another one sends goes through this before it is looked at or stored.
///
/// # Errors
/// [`TrustError::Content`] if there is none, or more than one, or something else.
pub(crate) fn only_certificate(text: &str) -> Result<String, TrustError> {
    let mut all = certificates(text)?;
    match (all.pop(), all.len()) {
        (Some(only), 0) => Ok(only),
        (_, more) => Err(content("one certificate")(format!("{} of them", more + 1))),
    }
}

fn pem_of(der: &CertificateDer<'_>) -> String {
    let digits = STANDARD.encode(der);
    let mut text = format!("{BEGIN}CERTIFICATE-----\n");
    let mut rest = digits.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str(END);
    text.push_str("CERTIFICATE-----\n");
    text
}

/// Each key of a text, as its own text: a secret.
pub(crate) fn keys(text: &str) -> Vec<String> {
    blocks(text)
}

/// Of the keys in a text the one that belongs to the certificate. The only one is not looked at: whoever uses it does.
///
/// # Errors
/// [`TrustError::Content`] if none does.
pub(crate) fn key_of(certificate: &str, text: &str) -> Result<String, TrustError> {
    let all = keys(text);
    if all.len() < 2 {
        return Ok(text.to_string());
    }
    for key in all {
        if belongs(certificate, &OwnKey::open(&key)?)? {
            return Ok(key);
        }
    }
    let why = format!(
        "none of {} keys belongs to its certificate",
        keys(text).len()
    );
    Err(content("a key")(why))
}

/// Whether the certificate is of this key.
pub(crate) fn belongs(certificate: &str, key: &OwnKey) -> Result<bool, TrustError> {
    let failed = content("a certificate");
    let der = CertificateDer::from_pem_slice(certificate.as_bytes())
        .map_err(|error| failed(error.to_string()))?;
    let (_, parsed) = X509Certificate::from_der(&der).map_err(|error| failed(error.to_string()))?;
    Ok(parsed.public_key().raw == key.subject_public_key_info())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::witness_identity;

    #[test]
    fn of_several_keys_the_right_one_is_taken() {
        let identities = [0; 3].map(|_| witness_identity().expect("an identity"));
        let text: String = identities.iter().map(|one| one.key.as_str()).collect();
        for one in &identities {
            let key = key_of(&one.certificate, &text).expect("its key");
            let (key, own) = (OwnKey::open(&key), OwnKey::open(&one.key));
            assert_eq!(
                key.expect("a key").der_bytes(),
                own.expect("a key").der_bytes()
            );
        }
        let stranger = witness_identity().expect("an identity");
        assert!(key_of(&stranger.certificate, &text).is_err());
        let both = format!(
            "# a\n{}x\n{}",
            identities[0].certificate, identities[1].certificate
        );
        assert_eq!(certificates(&both).expect("two").len(), 2);
        assert!(certificates("").is_err() && certificates(&text).is_err());
        assert!(only_certificate(&both).is_err());
        let own = identities[0].certificate.as_str();
        assert_eq!(only_certificate(own).expect("one"), own);
        // Other ends of lines, words beside it: only the certificate stays.
        let odd = format!("# a\n{}b\n", own.replace('\n', "\r\n"));
        assert_eq!(only_certificate(&odd).expect("one"), own);
        let hidden = format!(
            "{}\r{}",
            own.trim_end(),
            identities[1].certificate.replace('\n', "\r")
        );
        assert!(only_certificate(&hidden).is_err());
    }
}
