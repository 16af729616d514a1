//! Answers: whole, in pieces, or going on as long as a watch.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Response,
    body::{Bytes, Frame},
    header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER},
};
use tokio::time::sleep;

use super::{status::Failure, watch::Watch};

/// Body of an answer.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// An answer before it is sent.
pub struct Answer {
    /// Code of HTTP.
    pub code: u16,
    /// Its body.
    pub content: Content,
    /// `Retry-After`, in seconds.
    pub retry_after: Option<u64>,
}

/// What an answer says.
pub enum Content {
    /// This.
    Whole(Bytes),
    /// The lines of a watch.
    Watch(Box<Watch>),
}

impl Answer {
    /// These bytes.
    pub fn of(code: u16, bytes: impl Into<Bytes>) -> Self {
        Self { code, content: Content::Whole(bytes.into()), retry_after: None }
    }

    /// A failure.
    pub fn failed(failure: &Failure, retry_after: Option<u64>) -> Self {
        Self { retry_after, ..Self::of(failure.code, failure.document().to_string()) }
    }

    /// The answer as hyper sends it, in pieces of so many bytes with a pause before each if there is a pace; counts what is
    /// sent.
    pub fn into_response(self, sent: Arc<AtomicU64>, pace: Option<(usize, Duration)>) -> Response<Body> {
        let body = match (self.content, pace) {
            (Content::Whole(bytes), None) => {
                sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                Full::new(bytes).boxed_unsync()
            }
            (Content::Whole(bytes), Some((piece, pause))) => slow(bytes, piece.max(1), pause, sent),
            (Content::Watch(watch), pace) => lines(watch, pace.map(|(_, pause)| pause), sent),
        };
        let mut response = Response::new(body);
        *response.status_mut() = hyper::StatusCode::from_u16(self.code).unwrap_or_default();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// A body in pieces.
fn slow(bytes: Bytes, piece: usize, pause: Duration, sent: Arc<AtomicU64>) -> Body {
    let pieces = stream::unfold((bytes, sent), move |(mut bytes, sent)| async move {
        if bytes.is_empty() {
            return None;
        }
        let part = bytes.split_to(piece.min(bytes.len()));
        sleep(pause).await;
        sent.fetch_add(part.len() as u64, Ordering::Relaxed);
        Some((Ok::<_, Infallible>(Frame::data(part)), (bytes, sent)))
    });
    StreamBody::new(pieces).boxed_unsync()
}

/// A body that goes on as long as its watch.
fn lines(watch: Box<Watch>, pause: Option<Duration>, sent: Arc<AtomicU64>) -> Body {
    let lines = stream::unfold((watch, sent), move |(mut watch, sent)| async move {
        let line = watch.next().await?;
        sleep(pause.unwrap_or_default()).await;
        sent.fetch_add(line.len() as u64, Ordering::Relaxed);
        Some((Ok::<_, Infallible>(Frame::data(line)), (watch, sent)))
    });
    StreamBody::new(lines).boxed_unsync()
}
