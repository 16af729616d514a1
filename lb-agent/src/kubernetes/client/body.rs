//! The body of an answer, with an end: silence for too long is a failure of its server.

use std::{
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use super::{Shared, chain};

/// A body that fails when nothing comes for a while, and tells of every failure.
pub(super) struct Guarded {
    inner: Incoming,
    idle: Duration,
    end: Pin<Box<Sleep>>,
    server: String,
    shared: Arc<Shared>,
}

/// Nothing came for too long.
#[derive(Debug)]
struct Silent(Duration);

impl fmt::Display for Silent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nothing came for {:?}", self.0)
    }
}

impl Error for Silent {}

impl Guarded {
    pub(super) fn new(inner: Incoming, idle: Duration, server: String, shared: Arc<Shared>) -> Self {
        Self { inner, idle, end: Box::pin(sleep(idle)), server, shared }
    }
}

impl Body for Guarded {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match Pin::new(&mut self.inner).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                let end = Instant::now() + self.idle;
                self.end.as_mut().reset(end);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.shared.failed(&self.server, &chain(&error));
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending if self.end.as_mut().poll(context).is_ready() => {
                let silent = Silent(self.idle);
                self.shared.failed(&self.server, &silent.to_string());
                Poll::Ready(Some(Err(silent.into())))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
