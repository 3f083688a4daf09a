//! How long certificates and CRLs are good for.
//!
//! It reads files and no clock; who is warned, and when, is not known here.

use std::path::Path;

use x509_parser::prelude::{CertificateRevocationList, FromDer, GeneralName, X509Certificate, X509Name};

use super::{TlsError, certificates, names};

/// What a certificate or a CRL says of itself. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validity {
    /// The subject as in RFC 2253, or the first alternative name (`DNS:db.example`) where that is empty; of a CRL the
    /// CA that has made it.
    pub subject: String,
    /// It is not good before.
    pub not_before: i64,
    /// It is not good after.
    pub not_after: i64,
}

/// What the certificates in a file say, in the file's order; those that cannot be read are left out.
///
/// # Errors
/// The file cannot be read.
pub fn certificate_validity(file: &Path) -> Result<Vec<Validity>, TlsError> {
    let certificates = certificates::chain(file)?;
    Ok(certificates
        .iter()
        .filter_map(|der| of_certificate(der))
        .collect())
}

/// What the CRLs in a file say, likewise. One that does not say when the next comes is good for ever and left out.
///
/// # Errors
/// The file cannot be read.
pub fn crl_validity(file: &Path) -> Result<Vec<Validity>, TlsError> {
    let lists = certificates::revocation_lists(file)?;
    Ok(lists.iter().filter_map(|der| of_crl(der)).collect())
}

fn of_certificate(der: &[u8]) -> Option<Validity> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(Validity {
        subject: subject(&certificate),
        not_before: certificate.validity().not_before.timestamp(),
        not_after: certificate.validity().not_after.timestamp(),
    })
}

fn of_crl(der: &[u8]) -> Option<Validity> {
    let (_, list) = CertificateRevocationList::from_der(der).ok()?;
    Some(Validity {
        subject: readable(list.issuer()),
        not_before: list.last_update().timestamp(),
        not_after: list.next_update()?.timestamp(),
    })
}

fn subject(certificate: &X509Certificate<'_>) -> String {
    let subject = readable(certificate.subject());
    if !subject.is_empty() {
        return subject;
    }
    let names = certificate.subject_alternative_name().ok().flatten();
    let name = names.and_then(|names| names.value.general_names.first());
    match name {
        Some(GeneralName::DNSName(name)) => format!("DNS:{name}"),
        _ => format!("serial {}", certificate.raw_serial_as_string()),
    }
}

fn readable(name: &X509Name<'_>) -> String {
    names::rfc2253(name).unwrap_or_else(|_| "unreadable".to_owned())
}
