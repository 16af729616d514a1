//! Which managers are believed, and the certificate we show them.

use std::{path::Path, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, Error, RootCertStore, SupportedCipherSuite,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use super::error::NsxtError;
use crate::{
    config::{NsxtAuth, NsxtTrust},
    tls::{Anybody, Belief, Shown, Verifier},
};

/// The client's side of TLS. It is the same for every request, logins too.
pub(super) fn client_config(trust: &NsxtTrust, auth: &NsxtAuth) -> Result<ClientConfig, NsxtError> {
    let setup = |error: Error| NsxtError::Setup(error.to_string());
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(setup)?;
    let builder = match trust {
        NsxtTrust::Authorities(certificates) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates {
                roots.add(CertificateDer::from(certificate.as_slice())).map_err(setup)?;
            }
            builder.with_root_certificates(roots)
        }
        NsxtTrust::Thumbprints(values) => {
            let pinned = Verifier::new(Pinned(values.clone()));
            builder.dangerous().with_custom_certificate_verifier(Arc::new(pinned))
        }
        NsxtTrust::Anybody => builder.dangerous().with_custom_certificate_verifier(Arc::new(Verifier::new(Anybody))),
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

/// Believes certificates by their hash.
#[derive(Debug)]
struct Pinned(Vec<[u8; 32]>);

impl Belief for Pinned {
    fn judge(&self, shown: Shown<'_>) -> Result<(), Error> {
        match thumbprint(shown.certificate) {
            Some(hash) if self.0.contains(&hash) => Ok(()),
            _ => Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)),
        }
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
