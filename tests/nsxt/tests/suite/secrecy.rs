//! Logs and errors: what they tell, and what they never do.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use nsxt_tests::{ADMIN, Action, Fault, Reply};
use serde_json::{Value, json};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use crate::bed::{Bed, VIP, wanted};

const HOPS: [&str; 3] = ["10.20.4.2", "10.20.4.3", "10.20.4.4"];

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Log {
    /// Logs everything of this thread, as JSON.
    fn begin() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new("trace"))
            .with_writer(log.clone())
            .json()
            .flatten_event(true)
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// The first line with this message.
    fn line(&self, message: &str) -> Value {
        let text = self.text();
        let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.find(|line| line["message"] == message).unwrap_or_else(|| panic!("no {message}:\n{text}"))
    }
}

/// Every form in which the password could show.
fn forms() -> Vec<String> {
    vec![
        ADMIN.1.to_owned(),
        "s3cr%2Bt".to_owned(),
        // `admin:s3cr+t & 100%` in base64.
        "YWRtaW46czNjcit0ICYgMTAwJQ".to_owned(),
        "JSESSIONID=".to_owned(),
        "token-0-".to_owned(),
        "hunter2".to_owned(),
    ]
}

#[tokio::test]
async fn no_password_cookie_or_token_shows_anywhere() {
    for auth in ["auth: basic", "auth: session"] {
        let (log, _guard) = Log::begin();
        let bed = Bed::new(2).await;
        let config = bed.config(&[auth]);
        let mut shown = format!("{config:?}");
        let mut run = bed.keep(config, &HOPS);
        run.has(&HOPS).await;
        bed.world().fault(Fault::on("GET", "static-routes", 2, Action::ResetBefore));
        bed.world().fault(Fault::on(
            "GET",
            "static-routes",
            1,
            Action::Answer(Reply::text(500, "text/plain", "broken")),
        ));
        bed.world().drop_sessions(0);
        run.passes(3).await;
        bed.set_password("hunter2");
        (0..2).for_each(|node| bed.world().drop_sessions(node));
        let error = run.fails("refused the credentials").await;
        shown += &format!("{error}{:?}{:?}{}", run.status.borrow(), bed.world().requests(), log.text());
        assert!(shown.contains("processing EndpointSlice") && shown.contains("NSX-T request"), "something was logged");
        for form in forms() {
            assert!(!shown.contains(&form), "{auth}: {form}");
        }
    }
}

#[tokio::test]
async fn log_lines_have_their_fields() {
    let (log, _guard) = Log::begin();
    let bed = Bed::new(1).await;
    let mut run = bed.keep(bed.config(&[]), &HOPS);
    run.has(&HOPS).await;
    run.wanted.send_replace(wanted(&[VIP], &HOPS[..2]));
    run.has(&HOPS[..2]).await;
    let start = log.line("starting the keeper of NSX-T routes");
    assert_eq!((&start["cluster"], &start["tier1"]), (&json!("c1"), &json!("t1")));
    let slice = log.line("processing EndpointSlice");
    assert_eq!((&slice["name"], &slice["endpoints"]), (&json!("default/kubernetes"), &json!(3)));
    let created = log.line("static route is created");
    assert_eq!(
        (&created["name"], &created["hops"]),
        (&json!("to-192.168.160.249"), &json!("10.20.4.2,10.20.4.3,10.20.4.4"))
    );
    let changed = log.line("static route is changed");
    assert_eq!(
        (&changed["hops"], &changed["former"]),
        (&json!("10.20.4.2,10.20.4.3"), &json!("10.20.4.2,10.20.4.3,10.20.4.4"))
    );
    let metrics = run.status.borrow().metrics();
    let value = |name: &str| metrics.iter().find(|metric| metric.name == name).unwrap().value;
    assert_eq!(
        (value("levee_nsxt_route_updates"), value("levee_nsxt_route_hops"), value("levee_nsxt_leading")),
        (2, 2, 1)
    );
}
