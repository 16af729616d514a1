//! Parameters of requests.

use std::time::Duration;

use super::status::Failure;

/// Parameters of a request.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// `watch`.
    pub watch: bool,
    /// `resourceVersion`, unless it is empty or 0.
    pub version: Option<u64>,
    /// `allowWatchBookmarks`.
    pub bookmarks: bool,
    /// `sendInitialEvents`.
    pub initial_events: bool,
    /// `timeoutSeconds`.
    pub timeout: Option<Duration>,
    /// `limit`.
    pub limit: Option<usize>,
    /// `continue`.
    pub continuation: Option<String>,
    /// `labelSelector`.
    pub labels: String,
    /// `fieldSelector`.
    pub fields: String,
    /// `fieldManager`.
    pub manager: Option<String>,
    /// `force`.
    pub force: bool,
}

impl Query {
    /// Reads what stands behind the question mark.
    ///
    /// # Errors
    /// If a number is none, or something is asked for that is not done here.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let mut query = Self::default();
        for (name, value) in text.split('&').filter_map(|pair| pair.split_once('=')) {
            let value = unescape(value);
            let truth = matches!(value.as_str(), "true" | "1");
            let wrong = || Failure::bad_request(format!("{name}: {value:?} is no number"));
            match name {
                "watch" => query.watch = truth,
                "resourceVersion" if value.is_empty() => {}
                "resourceVersion" => {
                    query.version = Some(value.parse().map_err(|_| wrong())?).filter(|&version| version > 0);
                }
                "allowWatchBookmarks" => query.bookmarks = truth,
                "sendInitialEvents" => query.initial_events = truth,
                "timeoutSeconds" => query.timeout = Some(Duration::from_secs(value.parse().map_err(|_| wrong())?)),
                "limit" => query.limit = Some(value.parse().map_err(|_| wrong())?).filter(|&limit| limit > 0),
                "continue" => query.continuation = Some(value).filter(|value| !value.is_empty()),
                "labelSelector" => query.labels = value,
                "fieldSelector" => query.fields = value,
                "fieldManager" => query.manager = Some(value),
                "force" => query.force = truth,
                "dryRun" => return Err(Failure::bad_request("dryRun is not supported here")),
                _ => {} // resourceVersionMatch, fieldValidation, pretty: all the same here
            }
        }
        Ok(query)
    }
}

/// `%2C` -> `,`.
fn unescape(text: &str) -> String {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        let byte = match (first, after) {
            (b'%', [high, low, after @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    rest = after;
                    high << 4 | low
                }
                _ => b'%',
            },
            (b'+', _) => b' ',
            (&byte, _) => byte,
        };
        bytes.push(byte);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_unescaped() {
        let query = Query::parse("labelSelector=a%3Db%2Cc&resourceVersion=7&watch=true&limit=0").unwrap();
        assert_eq!((query.labels.as_str(), query.version, query.watch, query.limit), ("a=b,c", Some(7), true, None));
        assert_eq!(Query::parse("resourceVersion=x").unwrap_err().code, 400);
        assert_eq!(unescape("100%+a%zz"), "100% a%zz");
    }
}
