//! Logs and errors: what they tell, and what they never do.

use std::{
    cell::RefCell,
    io::{self, Write},
    sync::Once,
};

use nsxt_tests::{ADMIN, Action, Fault, Reply};
use serde_json::{Value, json};
use tracing_subscriber::EnvFilter;

use crate::bed::{Bed, VIP, wanted};

const HOPS: [&str; 3] = ["10.20.4.2", "10.20.4.3", "10.20.4.4"];

thread_local! {
    /// What this thread logged. A test and all its tasks run on one thread.
    static LOGGED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Writes to the log of the thread.
struct ToThread;

impl Write for ToThread {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOGGED.with_borrow_mut(|logged| logged.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The log of this thread.
struct Log;

impl Log {
    /// Logs everything, as JSON.
    fn begin() -> Self {
        static STARTED: Once = Once::new();
        STARTED.call_once(|| {
            tracing_subscriber::fmt()
                .with_env_filter(EnvFilter::new("trace"))
                .with_writer(|| ToThread)
                .json()
                .flatten_event(true)
                .init();
        });
        LOGGED.take();
        Self
    }

    fn text(&self) -> String {
        LOGGED.with_borrow(|logged| String::from_utf8(logged.clone()).unwrap())
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
        let log = Log::begin();
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
    let log = Log::begin();
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
