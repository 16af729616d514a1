//! A certificate authority for one testbed.

use std::{fs, net::IpAddr, path::PathBuf, sync::Arc};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, SanType,
};
use rustls::{ClientConfig, RootCertStore, client::Resumption, pki_types::CertificateDer};

use crate::scope::Scope;

/// A CA, made anew for every testbed.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// Files a server reads at its start.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Certificate, PEM.
    pub certificate: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
}

impl Authority {
    /// Makes a CA with a key of its own.
    ///
    /// # Errors
    /// If no key can be made.
    pub fn new() -> Result<Self> {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().context("making the key of the CA")?;
        let issuer = CertifiedIssuer::self_signed(parameters, key).context("signing the certificate of the CA")?;
        Ok(Self { issuer })
    }

    /// A server certificate for `addresses`, in files of the scope named after `name`.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn issue(&self, scope: &Scope, name: &str, addresses: &[IpAddr]) -> Result<Identity> {
        self.issue_for(scope, name, &[name], addresses)
    }

    /// A server certificate for `names` and `addresses`, in files of the scope that begin with `file`.
    ///
    /// # Errors
    /// If a name cannot stand in a certificate, or a file cannot be written.
    pub fn issue_for(&self, scope: &Scope, file: &str, names: &[&str], addresses: &[IpAddr]) -> Result<Identity> {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut parameters = CertificateParams::new(names).context("naming a certificate")?;
        // With the name of its CA, OpenSSL takes it for one that signed itself.
        parameters.distinguished_name.push(DnType::CommonName, file);
        parameters.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
        self.sign(scope, file, &parameters)
    }

    /// A client certificate in files of the scope that begin with `file`, for a user of a group as Kubernetes reads
    /// them: common name and organization.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn issue_client(&self, scope: &Scope, file: &str, user: &str, group: &str) -> Result<Identity> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, user);
        parameters.distinguished_name.push(DnType::OrganizationName, group);
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(scope, file, &parameters)
    }

    fn sign(&self, scope: &Scope, file: &str, parameters: &CertificateParams) -> Result<Identity> {
        let key = KeyPair::generate().context("making a key")?;
        let certificate = parameters.signed_by(&key, &self.issuer).context("signing a certificate")?;
        let identity =
            Identity { certificate: scope.file(&format!("{file}.crt")), key: scope.file(&format!("{file}.key")) };
        fs::write(&identity.certificate, certificate.pem()).context("writing a certificate")?;
        fs::write(&identity.key, key.serialize_pem()).context("writing a key")?;
        Ok(identity)
    }

    /// Its own certificate, PEM, in a file of the scope.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn certificate(&self, scope: &Scope) -> Result<PathBuf> {
        let path = scope.file("ca.crt");
        fs::write(&path, self.issuer.pem()).context("writing the certificate of the CA")?;
        Ok(path)
    }

    /// TLS settings of a client that trusts this CA only and never resumes a session, so that every connection is new.
    ///
    /// # Errors
    /// If the CA's certificate is not accepted.
    pub fn client_config(&self) -> Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.issuer.der().to_vec())).context("trusting the CA")?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("choosing TLS versions")?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }
}
