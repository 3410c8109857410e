//! How long certificates are good. They begin long ago: a clock that is behind harms nothing. They end: what is stolen does not stay
//! good for ever.

use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, date_time_ymd};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::time::ASN1Time;

use super::{TrustError, content};

/// A day, in seconds.
pub const DAY_SECONDS: i64 = 24 * 3600;
/// An authority's certificate.
pub const AUTHORITY_DAYS: i64 = 20 * 365;
/// What it signs.
pub const CERTIFICATE_DAYS: i64 = 3 * 365;

/// Seconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}

/// It ends so many days from now. What cannot be written as a date is as long as there are any.
pub(super) fn limit(params: &mut CertificateParams, days: i64) {
    let seconds = now().saturating_add(days.saturating_mul(DAY_SECONDS));
    let date = ASN1Time::from_timestamp(seconds);
    params.not_after = date.map_or_else(|_| date_time_ymd(4096, 1, 1), |date| date.to_datetime());
}

/// Its last second, since 1970. It proves nothing.
///
/// # Errors
/// [`TrustError::Content`] if it is no certificate.
pub fn ends_at(certificate: &str) -> Result<i64, TrustError> {
    let failed = content("a certificate");
    let der = CertificateDer::from_pem_slice(certificate.as_bytes())
        .map_err(|error| failed(error.to_string()))?;
    let (_, parsed) = X509Certificate::from_der(&der).map_err(|error| failed(error.to_string()))?;
    Ok(parsed.validity().not_after.timestamp())
}

/// As people read it: `2029-11-22`.
pub fn day(seconds: i64) -> String {
    let date = ASN1Time::from_timestamp(seconds).map(|date| date.to_datetime().date());
    date.map_or_else(|_| "no date".to_string(), |date| date.to_string())
}
