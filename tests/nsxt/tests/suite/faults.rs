//! Managers that fail, refuse, or lose answers.

use std::time::Duration;

use nsxt_tests::{Action, Fault, Reply};
use serde_json::json;

use crate::bed::{Bed, Run, VIP, wanted};

const HOPS: [&str; 2] = ["10.20.4.2", "10.20.4.3"];

#[tokio::test]
async fn another_manager_serves_while_one_is_down() {
    let mut bed = Bed::new(3).await;
    let config = bed.config(&[]);
    bed.server.down(0).await;
    let mut run = bed.keep(config, &HOPS);
    let status = run.has(&HOPS).await;
    assert!(status.managers.iter().map(|manager| manager.down.is_some()).eq([true, false, false]), "{status:#?}");
    bed.server.down(1).await;
    run.wanted.send_replace(wanted(&[VIP], &HOPS[..1]));
    run.has(&HOPS[..1]).await;
    assert!(bed.world().requests().iter().any(|request| request.node == 2));
    bed.server.down(2).await;
    run.fails("no manager answers").await;
    // Health is asked for before a manager counts as well again.
    bed.server.up(0).await;
    bed.server.up(1).await;
    run.until("two managers", |status| {
        status.error.is_none() && status.managers.iter().map(|manager| manager.down.is_none()).eq([true, true, false])
    })
    .await;
    assert!(bed.world().requests().iter().any(|request| request.path == "/api/v1/reverse-proxy/node/health"));
}

#[tokio::test]
async fn a_manager_that_is_not_healthy_stays_out() {
    let mut bed = Bed::new(2).await;
    let config = bed.config(&[]);
    bed.server.down(0).await;
    bed.world().switch(|switches| switches.healthy = false);
    let mut run = bed.keep(config, &HOPS);
    run.has(&HOPS).await;
    bed.server.up(0).await;
    let status = run
        .until("its report", |status| {
            status
                .managers
                .first()
                .and_then(|manager| manager.down.as_ref())
                .is_some_and(|down| down.contains("POLICY:DOWN"))
        })
        .await;
    assert!(status.error.is_none());
}

#[tokio::test]
async fn too_many_requests_wait_as_long_as_they_are_told() {
    let bed = Bed::new(1).await;
    let told = Reply::too_many().with("retry-after", "1");
    bed.world().fault(Fault::on("PUT", "to-192", 1, Action::Answer(told)));
    let begin = std::time::Instant::now();
    bed.keep(bed.config(&[]), &HOPS).has(&HOPS).await;
    assert!(begin.elapsed() >= Duration::from_secs(1), "{:?}", begin.elapsed());
    let puts: Vec<_> = bed.world().writes().iter().map(|write| write.status).collect();
    assert_eq!(puts, [429, 200]);
}

#[tokio::test]
async fn a_long_pause_is_kept_and_reported() {
    let bed = Bed::new(1).await;
    let told = Reply::too_many().with("retry-after", "50");
    bed.world().fault(Fault::on("GET", "tier-1s", 1, Action::Answer(told)));
    let mut config = bed.config(&[]);
    config.resync = Duration::from_secs(3600);
    let mut run = Run::start(config, wanted(&[VIP], &HOPS), true);
    let error = run.fails("NSX-T is too busy").await;
    assert_eq!(
        error,
        "NSX-T is too busy (429 Client 'admin' exceeded request rate of 100 per second); trying again in 50 s"
    );
    assert_eq!(bed.world().requests().len(), 1);
}

#[tokio::test]
async fn pages_and_texts_in_place_of_answers_are_survived() {
    let bed = Bed::new(1).await;
    let world = bed.world();
    world.fault(Fault::on(
        "GET",
        "tier-1s",
        1,
        Action::Answer(Reply::text(502, "text/html", "<html><h1>502 Bad Gateway</h1></html>")),
    ));
    world.fault(Fault::on("GET", "tier-1s", 1, Action::Answer(Reply::text(503, "text/plain", "Service starting"))));
    world.fault(Fault::on(
        "GET",
        "static-routes",
        1,
        Action::Answer(Reply::text(200, "text/html", "<html>Log in</html>")),
    ));
    world.fault(Fault::on(
        "PUT",
        "static-routes",
        1,
        Action::Answer(Reply::error(500, 607, "common-services", "aborted")),
    ));
    bed.keep(bed.config(&[]), &HOPS).has(&HOPS).await;
    assert_eq!(bed.hops().unwrap(), HOPS);
}

#[tokio::test]
async fn a_busy_manager_passes_its_turn() {
    let bed = Bed::new(2).await;
    bed.world().fault(Fault::of_node(0, Action::Answer(Reply::text(503, "text/plain", "Service starting"))));
    bed.keep(bed.config(&[]), &HOPS).has(&HOPS).await;
    assert!(bed.world().requests().iter().filter(|request| request.node == 0).count() <= 2);
}

#[tokio::test]
async fn a_race_is_read_again_and_what_the_other_wrote_stays() {
    let bed = Bed::new(1).await;
    let mut run = bed.keep(bed.config(&[]), &HOPS);
    run.has(&HOPS).await;
    bed.world().fault(Fault::on("PUT", "to-192", 2, Action::ChangedBefore));
    run.wanted.send_replace(wanted(&[VIP], &HOPS[..1]));
    run.has(&HOPS[..1]).await;
    let answers: Vec<_> = bed.world().writes().iter().map(|write| write.status).collect();
    assert_eq!(answers, [200, 412, 412, 200]);
    let route = bed.world().route(crate::bed::ROUTE).unwrap();
    assert!(route["description"].as_str().unwrap().starts_with("changed by another tool"), "{route}");
}

#[tokio::test]
async fn a_race_that_does_not_end_is_reported_after_five_tries() {
    let bed = Bed::new(1).await;
    let mut run = bed.keep(bed.config(&[]), &HOPS);
    run.has(&HOPS).await;
    bed.world().forget_requests();
    bed.world().fault(Fault::on("PUT", "to-192", 5, Action::ChangedBefore));
    run.wanted.send_replace(wanted(&[VIP], &HOPS[..1]));
    run.fails("were changed by others 5 times").await;
    run.has(&HOPS[..1]).await;
    let answers: Vec<_> = bed.world().writes().iter().map(|write| write.status).collect();
    assert_eq!(answers, [412, 412, 412, 412, 412, 200]);
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_not_done_twice() {
    let bed = Bed::new(1).await;
    // Making: the second PUT meets what the first one made, and is told so.
    bed.world().fault(Fault::on("PUT", "to-192", 1, Action::ResetAfter));
    let mut run = bed.keep(bed.config(&[]), &HOPS);
    run.has(&HOPS).await;
    assert_eq!(bed.world().route(crate::bed::ROUTE).unwrap()["_revision"], 0);
    // Changing: the second PUT has an old revision.
    bed.world().fault(Fault::on("PUT", "to-192", 1, Action::ResetAfter));
    run.wanted.send_replace(wanted(&[VIP], &HOPS[..1]));
    run.has(&HOPS[..1]).await;
    run.passes(2).await;
    assert_eq!(bed.world().route(crate::bed::ROUTE).unwrap()["_revision"], 1);
    let answers: Vec<_> = bed.world().writes().iter().map(|write| write.status).collect();
    assert_eq!(answers, [0, 400, 0, 412]);
}

#[tokio::test]
async fn connections_that_break_before_anything_happened_are_tried_again() {
    let bed = Bed::new(1).await;
    bed.world().fault(Fault::on("GET", "", 3, Action::ResetBefore));
    bed.keep(bed.config(&[]), &HOPS).has(&HOPS).await;
}

#[tokio::test]
async fn a_manager_that_does_not_answer_in_time_is_left() {
    let bed = Bed::new(2).await;
    bed.world().fault(Fault::of_node(0, Action::Slow(Duration::from_secs(3600))));
    let mut config = bed.config(&[]);
    config.timeout = Duration::from_millis(300);
    let mut run = bed.keep(config, &HOPS);
    let status = run.has(&HOPS).await;
    assert!(status.managers[0].down.as_ref().is_some_and(|down| down.contains("no answer in time")), "{status:#?}");
}

#[tokio::test]
async fn redirects_are_followed_among_the_managers_and_nowhere_else() {
    let bed = Bed::new(2).await;
    let other = bed.server.urls()[1].clone();
    let to = |target: &str| Action::Answer(Reply { status: 307, ..Reply::empty() }.with("location", target.to_owned()));
    bed.world().fault(Fault::of_node(0, to(&format!("{other}/policy/api/v1/infra"))));
    bed.keep(bed.config(&[]), &HOPS).has(&HOPS).await;
    bed.world().mend();
    let stranger = Bed::new(1).await;
    let target = stranger.server.urls()[0].clone();
    bed.world().fault(Fault::of_node(0, to(&format!("{target}/policy/api/v1/infra"))));
    let mut run = bed.keep(bed.config(&[]), &HOPS);
    run.fails(&format!("redirects to {target}, which is not among `managers`")).await;
    assert_eq!(stranger.world().requests(), [], "no credentials go to strangers");
}

#[tokio::test]
async fn other_releases_answer_in_other_ways() {
    let bed = Bed::new(1).await;
    bed.world().switch(|switches| {
        switches.no_content = true;
        switches.codes_are_strings = true;
        switches.extra_fields = true;
        switches.missing_revision_is_412 = true;
        switches.largest_page = 1;
    });
    // More routes than fit on a page, so that ours is not on the first.
    for number in 0..3 {
        let body = json!({"network": format!("192.0.2.{number}/32"), "next_hops": [{"ip_address": "10.20.4.9"}]});
        crate::facts::ask(
            &bed.server,
            reqwest::Method::PUT,
            &format!("/policy/api/v1/infra/tier-1s/t1/static-routes/a{number}"),
            body,
        )
        .await;
    }
    bed.world().fault(Fault::on("PUT", "to-192", 1, Action::ResetAfter));
    let mut run = bed.keep(bed.config(&[]), &HOPS);
    run.has(&HOPS).await;
    run.wanted.send_replace(wanted(&[VIP], &HOPS[..1]));
    run.has(&HOPS[..1]).await;
    assert_eq!(bed.world().routes().len(), 4);
    assert_eq!(
        bed.world().route(crate::bed::ROUTE).unwrap()["origin_site_id"],
        "site-1",
        "unknown fields go back as they came"
    );
}
