//! What SCRAM is bound to over TLS: a hash of the server's certificate (`tls-server-end-point`, RFC 5929 section 4.1).
//!
//! It does not know which side it is computed for.

use ring::digest::{Algorithm, SHA256, SHA384, SHA512, digest};
use x509_parser::{
    prelude::{AlgorithmIdentifier, FromDer, X509Certificate},
    signature_algorithm::SignatureAlgorithm,
};

use crate::types::EndPointHash;

/// Hash functions by their own numbers and by those of the signature algorithms that are made of them. MD5 and SHA-1
/// are replaced by SHA-256; for what is not here (Ed25519, SHA-224) there is no channel binding.
const ALGORITHMS: &[(&str, &Algorithm)] = &[
    // RSA with MD5 and SHA-1.
    ("1.2.840.113549.1.1.4", &SHA256),
    ("1.2.840.113549.1.1.5", &SHA256),
    ("1.2.840.113549.1.1.11", &SHA256),
    ("1.2.840.113549.1.1.12", &SHA384),
    ("1.2.840.113549.1.1.13", &SHA512),
    // ECDSA with SHA-1.
    ("1.2.840.10045.4.1", &SHA256),
    ("1.2.840.10045.4.3.2", &SHA256),
    ("1.2.840.10045.4.3.3", &SHA384),
    ("1.2.840.10045.4.3.4", &SHA512),
    // MD5 and SHA-1 themselves.
    ("1.2.840.113549.2.5", &SHA256),
    ("1.3.14.3.2.26", &SHA256),
    ("2.16.840.1.101.3.4.2.1", &SHA256),
    ("2.16.840.1.101.3.4.2.2", &SHA384),
    ("2.16.840.1.101.3.4.2.3", &SHA512),
];

/// The hash of a certificate in DER, made with the hash function of the certificate's signature.
pub(super) fn hash(der: &[u8]) -> Option<EndPointHash> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let algorithm = algorithm(&certificate.signature_algorithm)?;
    Some(digest(algorithm, der).as_ref().into())
}

fn algorithm(signature: &AlgorithmIdentifier<'_>) -> Option<&'static Algorithm> {
    let oid = match SignatureAlgorithm::try_from(signature) {
        Ok(SignatureAlgorithm::RSASSA_PSS(parameters)) => parameters.hash_algorithm_oid().to_id_string(),
        _ => signature.algorithm.to_id_string(),
    };
    let known = ALGORITHMS.iter().find(|(name, _)| *name == oid);
    known.map(|(_, algorithm)| *algorithm)
}
