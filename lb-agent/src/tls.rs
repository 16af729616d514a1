//! Clients that believe a server for another reason than an authority's word on its name.
//!
//! Invariant: whatever a [`Belief`] says of a certificate, no handshake is accepted that its key did not sign.

use std::{fmt::Debug, sync::Arc};

use rustls::{
    DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

/// What a server shows, and under which name it was asked for.
#[derive(Clone, Copy)]
pub struct Shown<'a> {
    /// Its certificate.
    pub certificate: &'a CertificateDer<'a>,
    /// Those between it and an authority.
    pub intermediates: &'a [CertificateDer<'a>],
    /// Whom the client asked for.
    pub name: &'a ServerName<'a>,
    /// An answer of OCSP, empty if there is none.
    pub ocsp: &'a [u8],
    /// The time by which certificates expire.
    pub now: UnixTime,
}

/// Which certificates are accepted.
pub trait Belief: Debug + Send + Sync {
    /// Accepts what is shown, or says why not.
    ///
    /// # Errors
    /// The reason.
    fn judge(&self, shown: Shown<'_>) -> Result<(), Error>;
}

/// Accepts every certificate.
#[derive(Clone, Copy, Debug)]
pub struct Anybody;

impl Belief for Anybody {
    fn judge(&self, _: Shown<'_>) -> Result<(), Error> {
        Ok(())
    }
}

/// Verifies servers by a belief, and that they have the key of what they show.
#[derive(Debug)]
pub struct Verifier<B> {
    belief: B,
    provider: Arc<CryptoProvider>,
}

impl<B: Belief> Verifier<B> {
    /// A verifier of this belief.
    #[must_use]
    pub fn new(belief: B) -> Self {
        Self { belief, provider: Arc::new(ring::default_provider()) }
    }
}

impl<B: Belief> ServerCertVerifier for Verifier<B> {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.belief.judge(Shown { certificate, intermediates, name, ocsp, now })?;
        Ok(ServerCertVerified::assertion())
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
