//! Who an API server has to be: one that the cluster's authority vouches for, under its address or as
//! `kubernetes.default.svc`, which every API server's certificate names.

use std::sync::Arc;

use rustls::{
    CertificateError, Error, RootCertStore,
    client::{VerifierBuilderError, WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::ring,
    pki_types::ServerName,
};

use crate::tls::{Belief, Shown};

/// The name that stands in for an address which the certificate lacks.
const WELL_KNOWN: &str = "kubernetes.default.svc";

/// Believes whom the cluster's authority vouches for.
#[derive(Debug)]
pub(super) struct Vouched(Arc<WebPkiServerVerifier>);

impl Vouched {
    /// By these authorities.
    pub(super) fn new(roots: RootCertStore) -> Result<Self, VerifierBuilderError> {
        let provider = Arc::new(ring::default_provider());
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().map(Self)
    }
}

impl Belief for Vouched {
    fn judge(&self, shown: Shown<'_>) -> Result<(), Error> {
        let verdict = |name: &ServerName<'_>| {
            let Shown { certificate, intermediates, ocsp, now, .. } = shown;
            self.0.verify_server_cert(certificate, intermediates, name, ocsp, now).map(|_| ())
        };
        let by_name = verdict(shown.name);
        let other_name = matches!(
            by_name,
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
            ))
        );
        match (shown.name, ServerName::try_from(WELL_KNOWN)) {
            (ServerName::IpAddress(_), Ok(well_known)) if other_name => verdict(&well_known),
            _ => by_name,
        }
    }
}
