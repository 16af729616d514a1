//! One request to one manager: what is sent, what comes back, and what can go wrong in between.

use std::{error::Error, fmt, io, time::Duration};

use reqwest::{
    Method, Response,
    header::{COOKIE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER, SET_COOKIE},
    redirect::Policy,
};
use serde_json::Value;

use super::{error::NsxtError, pace::retry_after, secrets::Password, tls};
use crate::config::NsxtConfig;

/// The longest answer that is read, in bytes: a page of 1000 routes takes about a megabyte.
const MAX_BODY: usize = 16 << 20;
/// The longest that a connection may take: another manager can answer meanwhile.
const CONNECT: Duration = Duration::from_secs(2);
/// Header of the token that goes with a session's cookie.
const TOKEN: &str = "x-xsrf-token";
/// Name of a session's cookie.
const SESSION_COOKIE: &str = "JSESSIONID=";

/// A request. Its body never holds a secret.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// JSON.
    pub body: Option<Value>,
    /// Whether to ask for the right to change protected objects, where the configuration allows it.
    pub overwrite: bool,
}

impl Request {
    /// A request without a body.
    #[must_use]
    pub const fn new(method: Method, path: String) -> Self {
        Self { method, path, body: None, overwrite: false }
    }

    /// One that changes something.
    #[must_use]
    pub const fn write(method: Method, path: String, body: Option<Value>) -> Self {
        Self { method, path, body, overwrite: true }
    }

    /// Whether doing it twice is like doing it once.
    pub(super) fn is_repeatable(&self) -> bool {
        self.method != Method::POST
    }

    /// The method as text.
    pub(super) fn verb(&self) -> &'static str {
        match self.method {
            Method::PUT => "PUT",
            Method::PATCH => "PATCH",
            Method::POST => "POST",
            Method::DELETE => "DELETE",
            _ => "GET",
        }
    }
}

/// What a manager answered.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    pub(super) retry_after: Option<Duration>,
    pub(super) location: Option<String>,
    pub(super) session: Option<Session>,
}

/// Cookie and token of a session with one manager. They are shown nowhere.
#[derive(Clone)]
pub(super) struct Session {
    cookie: HeaderValue,
    token: HeaderValue,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session(..)")
    }
}

/// By what a request shows who sends it.
pub(super) enum Credentials {
    /// By TLS, or not at all.
    None,
    Basic(String, Password),
    Session(Session),
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// The request did not get there.
    Unreachable(String),
    /// The manager's certificate was not believed.
    NotTrusted(String),
    /// It may have got there.
    Lost(String),
    /// It may have got there, and no answer came in time.
    Late,
}

/// The HTTP client.
pub(super) struct Http {
    client: reqwest::Client,
}

impl Http {
    pub(super) fn new(config: &NsxtConfig) -> Result<Self, NsxtError> {
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::client_config(&config.trust, &config.auth)?)
            .http1_only()
            .redirect(Policy::none())
            // A proxy of the environment has no business with these credentials.
            .no_proxy()
            .timeout(config.timeout)
            .connect_timeout(config.timeout.min(CONNECT))
            .pool_max_idle_per_host(1)
            .build();
        Ok(Self { client: client.map_err(|error| NsxtError::Setup(reason(&error)))? })
    }

    /// Sends a request.
    pub(super) async fn exchange(
        &self,
        manager: &str,
        request: &Request,
        credentials: &Credentials,
        overwrite: bool,
    ) -> Result<Answer, Fault> {
        let mut builder = self.client.request(request.method.clone(), format!("{manager}{}", request.path));
        builder = match credentials {
            Credentials::None => builder,
            // Marked as sensitive by the library.
            Credentials::Basic(user, password) => builder.basic_auth(user, Some(password.expose())),
            Credentials::Session(session) => {
                builder.header(COOKIE, session.cookie.clone()).header(TOKEN, session.token.clone())
            }
        };
        if let Some(body) = &request.body {
            builder = builder.json(body);
        }
        if request.overwrite && overwrite {
            builder = builder.header("X-Allow-Overwrite", "true");
        }
        let response = builder.header("Accept", "application/json").send().await;
        read(response.map_err(|error| fault(&error))?).await
    }

    /// Logs in. Name and password stand in a form, each percent-encoded.
    pub(super) async fn log_in(&self, manager: &str, user: &str, password: &Password) -> Result<Answer, Fault> {
        let form = format!("j_username={}&j_password={}", encode(user), encode(password.expose()));
        let request = self.client.post(format!("{manager}/api/session/create"));
        let request = request.header("Content-Type", "application/x-www-form-urlencoded").body(form);
        read(request.send().await.map_err(|error| fault(&error))?).await
    }
}

async fn read(mut response: Response) -> Result<Answer, Fault> {
    let headers = response.headers();
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let mut answer = Answer {
        status: response.status().as_u16(),
        body: Vec::new(),
        retry_after: text(RETRY_AFTER).and_then(|value| retry_after(value, jiff::Timestamp::now())),
        location: text(LOCATION).map(str::to_owned),
        session: session(headers),
    };
    while let Some(chunk) = response.chunk().await.map_err(|error| fault(&error))? {
        if answer.body.len() + chunk.len() > MAX_BODY {
            return Err(Fault::Lost(format!("an answer of more than {MAX_BODY} bytes")));
        }
        answer.body.extend_from_slice(&chunk);
    }
    Ok(answer)
}

fn session(headers: &HeaderMap) -> Option<Session> {
    let cookies = headers.get_all(SET_COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut cookies = cookies.map(|cookie| cookie.split(';').next().unwrap_or_default().trim());
    let cookie = cookies.rfind(|cookie| cookie.starts_with(SESSION_COOKIE))?;
    let sensitive = |mut value: HeaderValue| {
        value.set_sensitive(true);
        value
    };
    Some(Session {
        cookie: sensitive(HeaderValue::from_str(cookie).ok()?),
        token: sensitive(headers.get(TOKEN)?.clone()),
    })
}

/// What is the matter with a request, without its URL.
fn fault(error: &reqwest::Error) -> Fault {
    match error.source().and_then(tls_cause) {
        Some(rustls::Error::InvalidCertificate(cause)) => return Fault::NotTrusted(not_trusted(cause)),
        Some(other) => return Fault::Unreachable(format!("TLS: {other}")),
        None => {}
    }
    match (error.is_connect(), error.is_timeout()) {
        (true, _) => Fault::Unreachable(reason(error)),
        (false, true) => Fault::Late,
        (false, false) => Fault::Lost(reason(error)),
    }
}

/// What TLS says, however deep it is wrapped: an `io::Error` does not name its content as its source.
fn tls_cause<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    if let Some(tls) = error.downcast_ref() {
        return Some(tls);
    }
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => tls_cause(inner),
        None => tls_cause(error.source()?),
    }
}

fn not_trusted(cause: &rustls::CertificateError) -> String {
    match cause {
        rustls::CertificateError::ApplicationVerificationFailure => {
            "its certificate has another SHA-256 value than `thumbprint`".to_owned()
        }
        // A bad signature: an authority of that name is known, but with another key.
        rustls::CertificateError::UnknownIssuer | rustls::CertificateError::BadSignature => {
            "its certificate is not signed by an authority in `caFile`".to_owned()
        }
        other => other.to_string(),
    }
}

/// The innermost cause, which says most.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut cause = error.source();
    let mut text = "the connection failed".to_owned();
    while let Some(inner) = cause {
        text = inner.to_string();
        cause = inner.source();
    }
    text
}

/// Percent-encodes all but unreserved characters (RFC 3986 section 2.3).
#[must_use]
pub fn encode(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plus_is_encoded_like_all_that_is_reserved() {
        assert_eq!(encode("a+b&c=d é/~"), "a%2Bb%26c%3Dd%20%C3%A9%2F~");
    }

    #[test]
    fn a_session_is_cookie_and_token_and_shows_neither() {
        let mut headers = HeaderMap::new();
        headers.append(SET_COOKIE, HeaderValue::from_static("other=1; Path=/"));
        headers.append(SET_COOKIE, HeaderValue::from_static("JSESSIONID=AB12; Path=/; Secure; HttpOnly"));
        assert!(session(&headers).is_none(), "without a token");
        headers.insert(TOKEN, HeaderValue::from_static("tok"));
        let session = session(&headers).unwrap();
        assert_eq!((session.cookie.to_str().unwrap(), session.token.to_str().unwrap()), ("JSESSIONID=AB12", "tok"));
        assert_eq!(format!("{session:?}"), "Session(..)");
        assert!(session.cookie.is_sensitive() && session.token.is_sensitive());
    }
}
