//! Which managers are believed, and the certificate we show them.

use std::{path::Path, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, SupportedCipherSuite,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};

use super::error::NsxtError;
use crate::config::{NsxtAuth, NsxtTrust};

/// The client's side of TLS. It is the same for every request, logins too.
pub(super) fn client_config(trust: &NsxtTrust, auth: &NsxtAuth) -> Result<ClientConfig, NsxtError> {
    let setup = |error: Error| NsxtError::Setup(error.to_string());
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(setup)?;
    let builder = match trust {
        NsxtTrust::Authorities(certificates) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates {
                roots.add(CertificateDer::from(certificate.as_slice())).map_err(setup)?;
            }
            builder.with_root_certificates(roots)
        }
        NsxtTrust::Thumbprints(values) => {
            let pinned = Pinned { values: Some(values.clone()), provider };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(pinned))
        }
        NsxtTrust::Anybody => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Pinned { values: None, provider }))
        }
    };
    let NsxtAuth::Certificate { certificate, key } = auth else {
        return Ok(builder.with_no_client_auth());
    };
    let bad = |path: &Path, cause: String| NsxtError::ClientCertificate { path: path.to_owned(), cause };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| bad(certificate, error.to_string()))?;
    if chain.is_empty() {
        return Err(bad(certificate, "no certificate in it".to_owned()));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| bad(key, error.to_string()))?;
    builder.with_client_auth_cert(chain, private).map_err(|error| bad(key, error.to_string()))
}

/// SHA-256 of a certificate in DER.
#[must_use]
pub fn thumbprint(certificate: &[u8]) -> Option<[u8; 32]> {
    let SupportedCipherSuite::Tls13(suite) = ring::cipher_suite::TLS13_AES_128_GCM_SHA256 else { return None };
    suite.common.hash_provider.hash(certificate).as_ref().try_into().ok()
}

/// Accepts certificates by their hash, or every one; never a handshake that the certificate's key did not sign.
#[derive(Debug)]
struct Pinned {
    /// `None`: every one.
    values: Option<Vec<[u8; 32]>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let hash = thumbprint(certificate);
        match &self.values {
            Some(values) if !hash.is_some_and(|hash| values.contains(&hash)) => {
                Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thumbprint_is_sha_256() {
        // FIPS 180-2 appendix B.1.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let shown: String = thumbprint(b"abc").unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(shown, expected);
    }
}
