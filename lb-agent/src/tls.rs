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

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use rustls::{
        CertificateError, ClientConfig, ClientConnection, ServerConfig, ServerConnection, SupportedProtocolVersion,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
        version::{TLS12, TLS13},
    };

    use super::*;

    /// A server that shows a certificate, whether the key is its own or not.
    #[derive(Debug)]
    struct Shows(Arc<CertifiedKey>);

    impl ResolvesServerCert for Shows {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }
    }

    /// What a client that believes everybody says of a server with the key of its certificate, or with another.
    fn shake_hands(version: &'static SupportedProtocolVersion, has_key: bool) -> Result<(), Error> {
        let provider = Arc::new(ring::default_provider());
        let [own, other] = [(); 2].map(|()| KeyPair::generate().unwrap());
        let certificate = CertificateParams::default().self_signed(&own).unwrap();
        let key = if has_key { own } else { other };
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let key = provider.key_provider.load_private_key(key).unwrap();
        let shown = Shows(Arc::new(CertifiedKey::new(vec![certificate.der().clone()], key)));
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&[version]);
        let server = server.unwrap().with_no_client_auth().with_cert_resolver(Arc::new(shown));
        let client = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
        let client = client.dangerous().with_custom_certificate_verifier(Arc::new(Verifier::new(Anybody)));
        let name = ServerName::try_from("anybody").unwrap();
        let mut client = ClientConnection::new(Arc::new(client.with_no_client_auth()), name).unwrap();
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();
        while client.is_handshaking() {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            let mut wire = &wire[..];
            while !wire.is_empty() {
                server.read_tls(&mut wire).unwrap();
                server.process_new_packets()?;
            }
            let mut wire = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            let mut wire = &wire[..];
            while !wire.is_empty() {
                client.read_tls(&mut wire).unwrap();
                client.process_new_packets()?;
            }
        }
        Ok(())
    }

    #[test]
    fn who_lacks_the_key_of_what_he_shows_is_believed_by_nobody() {
        for version in [&TLS12, &TLS13] {
            assert_eq!(shake_hands(version, true), Ok(()), "{version:?}");
            let refused = shake_hands(version, false);
            let expected = Err(Error::InvalidCertificate(CertificateError::BadSignature));
            assert_eq!(refused, expected, "{version:?}");
        }
    }
}
