//! What NSX-T answers when it refuses, and what went wrong with it.

use std::{io, path::PathBuf, time::Duration};

use serde_json::Value;
use thiserror::Error;

/// Longest part of an answer that is quoted, in characters.
const QUOTED: usize = 300;

/// The body of a refusal. Every field can be missing, and a proxy answers with a page.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ApiError {
    /// `error_code`, which comes as a number or as a string of digits; 0 says nothing.
    pub code: Option<i64>,
    /// What it says, on one line.
    pub message: String,
}

impl ApiError {
    /// Reads a body: JSON as documented, or any text.
    #[must_use]
    pub fn read(body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(body);
        let Ok(Value::Object(fields)) = serde_json::from_str(&text) else {
            return Self { code: None, message: one_line(&without_tags(&text)) };
        };
        let code = match fields.get("error_code") {
            Some(Value::Number(number)) => number.as_i64(),
            Some(Value::String(text)) => text.parse().ok(),
            _ => None,
        };
        let message = fields.get("error_message").or_else(|| fields.get("message")).and_then(Value::as_str);
        let related = fields.get("related_errors").and_then(Value::as_array).into_iter().flatten();
        let related = related.filter_map(|error| error.get("error_message").and_then(Value::as_str));
        let message: Vec<_> = message.into_iter().chain(related).collect();
        Self { code: code.filter(|code| *code != 0), message: one_line(&message.join("; ")) }
    }

    /// The code where there is one, and the message.
    fn shown(&self) -> String {
        match (self.code, self.message.is_empty()) {
            (Some(code), true) => format!("error {code}"),
            (Some(code), false) => format!("error {code}: {}", self.message),
            (None, true) => "no reason given".to_owned(),
            (None, false) => self.message.clone(),
        }
    }
}

fn one_line(text: &str) -> String {
    let words: Vec<_> = text.split_whitespace().collect();
    let mut line: String = words.join(" ").chars().filter(|c| !c.is_control()).take(QUOTED).collect();
    if line.chars().count() == QUOTED {
        line.push_str("...");
    }
    line
}

/// The words of a page of HTML.
fn without_tags(text: &str) -> String {
    let mut words = String::new();
    let mut inside = false;
    for c in text.chars().take(8 * QUOTED) {
        match c {
            '<' => inside = true,
            '>' if inside => {
                inside = false;
                words.push(' ');
            }
            c if !inside => words.push(c),
            _ => {}
        }
    }
    words
}

/// What went wrong with NSX-T. No variant carries a password, a cookie or a token.
#[derive(Debug, Error)]
pub enum NsxtError {
    /// No manager could be spoken to.
    #[error("no manager answers ({0}); check `managers`, the network and `timeout`")]
    NoManager(String),
    /// A manager's certificate is not one to believe.
    #[error("{manager} is not trusted: {cause}; check `caFile` or `thumbprint`")]
    NotTrusted {
        /// Its URL.
        manager: String,
        /// Why.
        cause: String,
    },
    /// The managers ask for less.
    #[error("NSX-T is too busy ({cause}); trying again in {} s", after.as_secs())]
    Busy {
        /// What it said.
        cause: String,
        /// When to come again.
        after: Duration,
    },
    /// Name or password are wrong, or the account is locked.
    #[error("{manager} refused the credentials ({cause}); correct the password of `{who}` in NSX-T or here. No other attempt for {} s, \
             since five failures lock the account (a changed password is tried at once)", wait.as_secs())]
    Credentials {
        /// Whose they are.
        who: String,
        /// The manager's URL.
        manager: String,
        /// What it said.
        cause: String,
        /// How long nothing is tried with them.
        wait: Duration,
    },
    /// The user may not do it.
    #[error(
        "{method} {path} is forbidden ({cause}); give the user a role with the rights of `network_engineer` on this gateway"
    )]
    Forbidden {
        /// The method.
        method: &'static str,
        /// The path.
        path: String,
        /// What the manager said.
        cause: String,
    },
    /// The object belongs to another principal.
    #[error("{path} is protected ({cause}); set `allowOverwrite: true` if changing it is what you want")]
    Protected {
        /// The path.
        path: String,
        /// What the manager said.
        cause: String,
    },
    /// Any other refusal.
    #[error("{method} {path} was refused with {status} ({})", error.shown())]
    Refused {
        /// The method.
        method: &'static str,
        /// The path.
        path: String,
        /// HTTP status.
        status: u16,
        /// The body.
        error: ApiError,
    },
    /// Routes changed between reading and writing, again and again.
    #[error(
        "routes of gateway `{gateway}` were changed by others {tries} times while they were written; find out who else writes them"
    )]
    Contended {
        /// The gateway.
        gateway: String,
        /// How often it was tried.
        tries: usize,
    },
    /// An answer that makes no sense.
    #[error("{manager} answered {path} with what is no NSX-T answer ({cause}); check that `managers` names NSX-T")]
    Nonsense {
        /// Its URL.
        manager: String,
        /// The path.
        path: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The manager sent us to a host that is not in the configuration.
    #[error("{manager} redirects to {target}, which is not among `managers`; add it there if it is one")]
    Redirect {
        /// Its URL.
        manager: String,
        /// Where to.
        target: String,
    },
    /// There is no such gateway.
    #[error("there is no Tier-1 gateway with path, id or name `{0}`; correct `tier1`")]
    NoGateway(String),
    /// There are several of that name.
    #[error("several Tier-1 gateways are named `{name}`: {}; write one of these in `tier1`", paths.join(", "))]
    Ambiguous {
        /// The name.
        name: String,
        /// Their paths or ids.
        paths: Vec<String>,
    },
    /// The gateway was made through the Policy API, and the Manager API may only look at it.
    #[error("gateway `{0}` was made through the Policy API; set `api: policy` or `api: auto`")]
    OfPolicy(String),
    /// A password could not be had.
    #[error("password file {} can't be read: {source}; check `passwordFile`", path.display())]
    PasswordFile {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A password could not be had.
    #[error("{0} holds no password; write it there")]
    NoPassword(String),
    /// A certificate or key could not be used.
    #[error("{}: {cause}; check `clientCertificateFile` and `clientKeyFile`", path.display())]
    ClientCertificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The HTTP client could not be made.
    #[error("the HTTPS client can't be set up: {0}; report this with the configuration's `nsxt`")]
    Setup(String),
}

impl NsxtError {
    /// A refusal, told apart as far as its status and code say more.
    #[must_use]
    pub fn refusal(method: &'static str, path: &str, status: u16, error: ApiError) -> Self {
        let path = path.to_owned();
        match (status, error.code) {
            // 289: "attempts to delete or modify an object it doesn't own".
            (400 | 403, Some(289)) => Self::Protected { path, cause: error.shown() },
            (401 | 403, _) => Self::Forbidden { method, path, cause: error.shown() },
            _ => Self::Refused { method, path, status, error },
        }
    }

    /// Whether an object is not there: 404, and what Policy says of a path whose parent is missing.
    #[must_use]
    pub const fn is_absence(&self) -> bool {
        matches!(
            self,
            Self::Refused { status: 404, .. }
                | Self::Refused { status: 400, error: ApiError { code: Some(500_012), .. }, .. }
        )
    }

    /// Whether what was written was not what is there: to be read again. Codes as NSX-T's own clients map them.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        match self {
            Self::Refused { status: 409 | 412, .. } => true,
            Self::Refused { status: 400, error, .. } => {
                matches!(error.code, Some(500_127 | 500_087 | 500_232 | 100_148))
            }
            Self::Refused { status: 404, error, .. } => matches!(error.code, Some(500_090 | 202)),
            _ => false,
        }
    }

    /// How long to leave it alone, where the managers said so.
    #[must_use]
    pub const fn pause(&self) -> Option<Duration> {
        match self {
            Self::Busy { after, .. } => Some(*after),
            _ => None,
        }
    }

    /// Whether the managers as a whole do not serve, so that asking for something else is of no use.
    #[must_use]
    pub const fn is_general(&self) -> bool {
        !matches!(self, Self::Forbidden { .. } | Self::Protected { .. } | Self::Refused { .. } | Self::Contended { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_of_every_kind_are_read() {
        let table: [(&str, Option<i64>, &str); 8] = [
            (
                r#"{"httpStatus":"NOT_FOUND","error_code":600,"module_name":"common-services","error_message":"gone"}"#,
                Some(600),
                "gone",
            ),
            (
                r#"{"module_name":"common-services","error_message":"Client 'admin' exceeded request rate of 100 per second","error_code":"102"}"#,
                Some(102),
                "Client 'admin' exceeded request rate of 100 per second",
            ),
            (r#"{"error_code":0,"error_message":"x"}"#, None, "x"),
            (r#"{"related_errors":[{"error_message":"a"},{"error_message":"b"}]}"#, None, "a; b"),
            (
                "<html><head><title>502 Bad Gateway</title></head>\n<body>nginx</body></html>",
                None,
                "502 Bad Gateway nginx",
            ),
            ("Service\r\nstarting", None, "Service starting"),
            ("", None, ""),
            ("[1]", None, "[1]"),
        ];
        for (body, code, message) in table {
            let read = ApiError::read(body.as_bytes());
            assert_eq!((read.code, read.message.as_str()), (code, message), "{body}");
        }
    }

    #[test]
    fn refusals_are_told_apart() {
        let refusal =
            |status, code| NsxtError::refusal("PUT", "/p", status, ApiError { code, message: "m".to_owned() });
        assert!(
            refusal(412, None).is_stale()
                && refusal(409, Some(206)).is_stale()
                && refusal(400, Some(500_127)).is_stale()
        );
        assert!(!refusal(400, Some(289)).is_stale() && !refusal(400, None).is_stale());
        assert!(refusal(404, Some(600)).is_absence() && refusal(400, Some(500_012)).is_absence());
        assert!(!refusal(400, Some(500_045)).is_absence() && !refusal(403, Some(403)).is_absence());
        assert_eq!(
            refusal(400, Some(289)).to_string(),
            "/p is protected (error 289: m); set `allowOverwrite: true` if changing it is what you want"
        );
    }
}
