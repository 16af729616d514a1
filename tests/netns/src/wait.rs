//! Bounded waiting for a condition, looked at again and again.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use tokio::time::sleep;

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(25);

/// Looks until `look` yields a value, and returns it with the time it took.
///
/// # Errors
/// After `limit`, with `what` was awaited and what the last look found instead.
pub async fn until<T, F>(what: &str, limit: Duration, mut look: impl FnMut() -> F) -> Result<(T, Duration)>
where
    F: Future<Output = Result<T>>,
{
    let start = Instant::now();
    loop {
        let seen = match look().await {
            Ok(value) => return Ok((value, start.elapsed())),
            Err(seen) => seen,
        };
        if start.elapsed() >= limit {
            bail!("waited {:.1} s for {what}, last seen: {seen:#}", limit.as_secs_f64());
        }
        sleep(PAUSE).await;
    }
}
