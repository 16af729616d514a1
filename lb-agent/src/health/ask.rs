//! How a target is asked: made once per target, used for every probe of it.

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::time::{Instant, timeout_at};

use super::{Answer, http::Request, tcp, tls};
use crate::model::{ProbeKind, ProbeTarget};

/// Asks a target once.
pub(super) type Ask = Box<dyn Fn() -> BoxFuture<'static, Answer> + Send + Sync>;

/// The way to ask a target.
pub(super) fn of(target: &ProbeTarget) -> Ask {
    let target = target.clone();
    match &target.probe.kind {
        ProbeKind::Tcp => Box::new(move || {
            let target = target.clone();
            Box::pin(async move { tcp::probe(&target).await })
        }),
        ProbeKind::Http(http) => {
            let request = Arc::new(Request::new(&target, http, "http"));
            Box::new(move || Box::pin(ask(target.clone(), Arc::clone(&request), None)))
        }
        ProbeKind::Https(http, tls) => {
            let request = Arc::new(Request::new(&target, http, "https").showing(&tls.credentials));
            match tls::Client::new(&target, tls) {
                Ok(client) => {
                    let client = Arc::new(client);
                    Box::new(move || Box::pin(ask(target.clone(), Arc::clone(&request), Some(Arc::clone(&client)))))
                }
                Err(reason) => Box::new(move || {
                    let answer = Answer::Unknown(format!("this node cannot speak TLS: {reason}"));
                    Box::pin(std::future::ready(answer))
                }),
            }
        }
    }
}

/// Connects, speaks TLS if told, asks and closes: all of it within the probe's timeout.
async fn ask(target: ProbeTarget, request: Arc<Request>, tls: Option<Arc<tls::Client>>) -> Answer {
    let limit = target.probe.timeout;
    let deadline = Instant::now() + limit;
    let stream = match tcp::connect(&target, deadline).await {
        Ok(stream) => stream,
        Err(answer) => return answer,
    };
    let Some(tls) = tls else {
        return request.send(stream, limit, deadline).await;
    };
    match timeout_at(deadline, tls.connect(stream)).await {
        Ok(Ok(stream)) => request.send(stream, limit, deadline).await,
        Ok(Err(reason)) => Answer::open(reason),
        Err(_) => Answer::open(format!("connected, but no TLS handshake within {limit:?}")),
    }
}
