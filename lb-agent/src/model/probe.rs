//! How a backend is probed, as a plain value.

use std::{fmt, net::IpAddr, net::SocketAddr, ops::RangeInclusive, time::Duration};

/// A probe: what is asked, and how often.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Probe {
    /// What is asked.
    pub kind: ProbeKind,
    /// Port to connect to.
    pub port: u16,
    /// Time from the start of one probe to the start of the next, of which up to a tenth is left out at random so that
    /// nodes do not probe in step. At least 100 ms, default 2 s.
    pub interval: Duration,
    /// A probe without an answer after this long has failed, whatever it waits for. At most `interval`, default 1 s.
    pub timeout: Duration,
    /// Successes in a row after which a failed backend is healthy again. Default 2.
    pub rise: u8,
    /// Failures in a row after which a healthy backend has failed. Default 3.
    pub fall: u8,
}

/// What a probe asks.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum ProbeKind {
    /// Connects and closes.
    Tcp,
    /// Asks for a path by HTTP/1.1.
    Http(HttpProbe),
    /// The same inside TLS.
    Https(HttpProbe, TlsProbe),
}

/// A GET request and the answers to it that count as a success.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct HttpProbe {
    /// Path, with the query if there is one. Default `/`.
    pub path: String,
    /// Value of the `Host` header; `None` for the backend's address and port.
    pub host: Option<String>,
    /// The expected status. Redirects are not followed.
    pub status: ExpectedStatus,
}

/// Whom a TLS probe believes.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TlsProbe {
    /// The name that is asked for (SNI) and that the certificate has to have; `None` for the backend's address.
    pub server_name: Option<String>,
    /// Who has to have signed the certificate.
    pub trust: Trust,
    /// What the probe shows of itself.
    pub credentials: Credentials,
}

/// What a probe shows of itself to a server that asks. Nothing of it is ever shown to anybody else.
#[derive(Clone, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Credentials {
    /// Sent as `Authorization: Bearer`.
    pub token: Option<String>,
    /// Shown in the handshake.
    pub identity: Option<ClientIdentity>,
}

/// A client certificate with its key, of which the configuration has found that they can be used.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ClientIdentity {
    /// The certificate and what leads to its authority, X.509 in DER.
    pub chain: Vec<Vec<u8>>,
    /// The private key as PEM.
    pub key: Vec<u8>,
}

/// Who has to have signed a server's certificate.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Trust {
    /// Any certificate is accepted, whoever it is from and whatever name it has.
    Anybody,
    /// One of these, each an X.509 certificate in DER; at least one, and all of them readable.
    Authorities(Vec<Vec<u8>>),
}

/// HTTP status codes that count as a success: ranges within 100..=599, at least one.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ExpectedStatus(Vec<(u16, u16)>);

impl Probe {
    /// What it asks, in short: `tcp :6443`, `https :6443/readyz`.
    #[must_use]
    pub fn question(&self) -> String {
        let port = self.port;
        match &self.kind {
            ProbeKind::Tcp => format!("tcp :{port}"),
            ProbeKind::Http(http) => format!("http :{port}{}", http.path),
            ProbeKind::Https(http, _) => format!("https :{port}{}", http.path),
        }
    }
}

impl HttpProbe {
    /// Value of the `Host` header for a backend.
    #[must_use]
    pub fn host_of(&self, address: IpAddr, port: u16) -> String {
        self.host.clone().unwrap_or_else(|| SocketAddr::new(address, port).to_string())
    }
}

impl ExpectedStatus {
    /// The codes of these ranges.
    #[must_use]
    pub fn of(ranges: impl IntoIterator<Item = RangeInclusive<u16>>) -> Self {
        Self(ranges.into_iter().map(RangeInclusive::into_inner).collect())
    }

    /// Whether this code is a success.
    #[must_use]
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&status))
    }
}

impl Default for ExpectedStatus {
    /// 200..=399, as Kubernetes takes it.
    fn default() -> Self {
        Self(vec![(200, 399)])
    }
}

impl fmt::Display for ExpectedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.0.iter().enumerate() {
            f.write_str(if index > 0 { ", " } else { "" })?;
            if first == last { write!(f, "{first}")? } else { write!(f, "{first}-{last}")? }
        }
        Ok(())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials(token {}, certificate {})", self.token.is_some(), self.identity.is_some())
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientIdentity({} certificates)", self.chain.len())
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anybody => f.write_str("Anybody"),
            Self::Authorities(certificates) => write!(f, "Authorities({})", certificates.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expected_status_is_one_or_ranges() {
        let expected = ExpectedStatus::of([200..=299, 401..=401]);
        let accepted: Vec<u16> =
            [199, 200, 299, 300, 400, 401, 402].into_iter().filter(|s| expected.contains(*s)).collect();
        assert_eq!((accepted, expected.to_string()), (vec![200, 299, 401], "200-299, 401".to_owned()));
        assert_eq!(ExpectedStatus::default().to_string(), "200-399");
    }

    #[test]
    fn the_host_is_the_backend_unless_named() {
        let mut http = HttpProbe { path: "/".to_owned(), host: None, status: ExpectedStatus::default() };
        assert_eq!(http.host_of("fd00::1".parse().unwrap(), 80), "[fd00::1]:80");
        http.host = Some("api.example".to_owned());
        assert_eq!(http.host_of("10.0.0.1".parse().unwrap(), 80), "api.example");
    }
}
