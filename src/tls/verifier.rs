//! Server certificates where not everything about them is to be verified.
//!
//! `verify-full` is not here: that is what rustls does by itself.

use std::sync::Arc;

use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

/// Verifies what a mode asks for, and in every mode that the server has the key of its certificate.
#[derive(Debug)]
pub(super) struct PartialVerifier {
    trust: Trust,
    algorithms: WebPkiSupportedAlgorithms,
}

/// Which certificates will do.
#[derive(Debug)]
pub(super) enum Trust {
    /// `verify-ca`: all that this one verifies, except for the name.
    Chain(Arc<WebPkiServerVerifier>),
    /// `require` and below: any certificate, as nothing says which one to expect.
    Anything,
}

impl PartialVerifier {
    pub(super) fn new(trust: Trust, provider: &CryptoProvider) -> Self {
        Self {
            trust,
            algorithms: provider.signature_verification_algorithms,
        }
    }

    fn judge(
        &self,
        cert: &CertificateDer<'_>,
        verified: Result<HandshakeSignatureValid, Error>,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.trust {
            Trust::Chain(_) => verified,
            Trust::Anything => unless_unreadable(cert, verified),
        }
    }
}

impl ServerCertVerifier for PartialVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Trust::Chain(whole) = &self.trust else {
            return Ok(ServerCertVerified::assertion());
        };
        // The name is the last thing that it looks at: chain and revocation have passed when it complains of that.
        match whole.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge(cert, verify_tls12_signature(message, cert, dss, &self.algorithms))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge(cert, verify_tls13_signature(message, cert, dss, &self.algorithms))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Lets the X.509 version 1 certificates through that `openssl x509 -req` makes by default: webpki
/// does not read them, so there is no key to check the signature with. Nothing is lost: whoever could
/// stand in the middle here could as well bring a certificate and a good signature of their own.
fn unless_unreadable(
    cert: &CertificateDer<'_>,
    verified: Result<HandshakeSignatureValid, Error>,
) -> Result<HandshakeSignatureValid, Error> {
    match (verified, ParsedCertificate::try_from(cert)) {
        (Err(Error::InvalidCertificate(CertificateError::Other(_))), Err(_)) => {
            Ok(HandshakeSignatureValid::assertion())
        }
        (verified, _) => verified,
    }
}
