//! What an HTTPS probe shows of itself: `tokenFile`, `clientCertFile` with `clientKeyFile`. They are read with the
//! configuration; a changed file (tokens are renewed) is a changed configuration.

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::{
    authorities::CaFiles,
    error::Problems,
    read::{Fields, text},
};
use crate::model::{ClientIdentity, Credentials};

/// Reads the credentials; what is refused is absent in them.
pub(super) fn credentials(fields: &Fields<'_>, files: &mut CaFiles, problems: &mut Problems) -> Credentials {
    let token = bytes_of(fields, "tokenFile", files, problems).and_then(|(place, bytes)| {
        let token = String::from_utf8(bytes).ok().map(|token| token.trim().to_owned());
        let token = token.filter(|token| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()));
        if token.is_none() {
            problems
                .refuse(place, "`tokenFile` holds no token: one line of visible ASCII; write the bearer token into it");
        }
        token
    });
    let chain = bytes_of(fields, "clientCertFile", files, problems);
    let key = bytes_of(fields, "clientKeyFile", files, problems);
    let has = |key| fields.optional(key).is_some();
    if has("clientCertFile") != has("clientKeyFile") {
        problems.refuse(
            fields.place,
            "`clientCertFile` and `clientKeyFile` go together; add the other one, or leave both out",
        );
    }
    let identity = chain.zip(key).and_then(|((place, chain), (_, key))| {
        let read = identity(&chain, key);
        if read.is_none() {
            let reason = "`clientCertFile` and `clientKeyFile` hold no certificate and private key in PEM that belong together; export them again";
            problems.refuse(place, reason);
        }
        read
    });
    Credentials { token, identity }
}

fn bytes_of(
    fields: &Fields<'_>,
    key: &'static str,
    files: &mut CaFiles,
    problems: &mut Problems,
) -> Option<(super::error::Place, Vec<u8>)> {
    let path = fields.optional(key).and_then(|value| text(value, key, problems))?;
    match files.bytes(key, path.value) {
        Ok(bytes) => Some((path.place, bytes)),
        Err(reason) => {
            problems.refuse(path.place, reason);
            None
        }
    }
}

/// A certificate and the key that belongs to it.
fn identity(chain: &[u8], key: Vec<u8>) -> Option<ClientIdentity> {
    let certificates: Vec<CertificateDer<'_>> = CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().ok()?;
    let private = PrivateKeyDer::from_pem_slice(&key).ok()?;
    let provider = rustls::crypto::ring::default_provider();
    let signing = provider.key_provider.load_private_key(private).ok()?;
    rustls::sign::CertifiedKey::new(certificates.clone(), signing).keys_match().ok()?;
    Some(ClientIdentity { chain: certificates.iter().map(|certificate| certificate.to_vec()).collect(), key })
}
