//! Logging in, staying logged in, and not locking accounts; which managers are believed.

use std::{fs, time::Duration};

use nsxt_tests::{AUDITOR, Authority};

use crate::bed::{Bed, VIP, wanted};

const HOPS: [&str; 2] = ["10.20.4.2", "10.20.4.3"];

#[tokio::test]
async fn one_login_serves_a_session_until_it_expires() {
    let bed = Bed::new(1).await;
    let mut run = bed.keep(bed.config(&["auth: session"]), &HOPS);
    run.has(&HOPS).await;
    run.passes(2).await;
    assert_eq!(bed.world().logins(), 1);
    bed.world().drop_sessions(0);
    run.wanted.send_replace(wanted(&[VIP], &HOPS[..1]));
    run.has(&HOPS[..1]).await;
    assert_eq!(bed.world().logins(), 2);
    assert!(run.status.borrow().error.is_none());
}

#[tokio::test]
async fn every_manager_has_its_own_session_and_they_are_ended() {
    let mut bed = Bed::new(2).await;
    let mut run = bed.keep(bed.config(&["auth: session"]), &HOPS);
    run.has(&HOPS).await;
    bed.server.down(0).await;
    run.wanted.send_replace(wanted(&[VIP], &HOPS[..1]));
    run.has(&HOPS[..1]).await;
    assert_eq!((bed.world().logins(), bed.world().sessions(1)), (2, 1));
    drop(run);
    let world = bed.world().clone();
    let ended = async {
        while world.sessions(1) > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ended).await.unwrap();
}

#[tokio::test]
async fn a_wrong_password_is_tried_once_and_a_corrected_one_at_once() {
    for auth in ["auth: basic", "auth: session"] {
        let bed = Bed::new(3).await;
        bed.set_password("wrong");
        let mut run = bed.keep(bed.config(&[auth]), &HOPS);
        let error = run.fails("refused the credentials").await;
        assert!(error.contains("account specified has been locked") && error.contains("`admin`"), "{error}");
        run.attempts(10).await;
        assert_eq!(bed.world().requests().len(), 1, "{auth}: one try on one manager");
        bed.set_password(nsxt_tests::ADMIN.1);
        run.has(&HOPS).await;
    }
}

#[tokio::test]
async fn a_session_is_not_made_again_and_again_for_what_the_user_may_not_do() {
    let bed = Bed::new(1).await;
    let user = format!("username: {AUDITOR}");
    let mut run = bed.keep(bed.config(&["auth: session", &user]), &HOPS);
    let status = run.refuses("is forbidden").await;
    assert!(status.error.is_none());
    run.passes(5).await;
    assert!(bed.world().logins() <= 2, "{}", bed.world().logins());
    assert_eq!(bed.world().routes().len(), 0);
}

#[tokio::test]
async fn what_the_user_may_not_do_is_no_wrong_password() {
    let bed = Bed::new(1).await;
    let user = format!("username: {AUDITOR}");
    let mut run = bed.keep(bed.config(&[&user]), &HOPS);
    let status = run.refuses("give the user a role with the rights of `network_engineer`").await;
    assert!(status.error.is_none());
}

#[tokio::test]
async fn a_principal_identity_logs_in_by_certificate() {
    let bed = Bed::new(1).await;
    let identity = bed.server.authority.identity("levee");
    fs::write(bed.path().join("c.pem"), &identity.certificate).unwrap();
    fs::write(bed.path().join("k.pem"), &identity.key).unwrap();
    let lines = ["auth: certificate", "clientCertificateFile: c.pem", "clientKeyFile: k.pem"];
    let mut run = bed.keep(bed.config(&lines), &HOPS);
    run.has(&HOPS).await;
    assert_eq!(bed.world().route(crate::bed::ROUTE).unwrap()["_create_user"], "levee");
    fs::write(bed.path().join("k.pem"), "nothing").unwrap();
    let mut run = bed.keep(bed.config(&lines), &HOPS);
    run.fails("check `clientCertificateFile` and `clientKeyFile`").await;
}

#[tokio::test]
async fn a_missing_password_file_is_named() {
    let bed = Bed::new(1).await;
    let mut run = bed.keep(bed.config(&["passwordFile: absent"]), &HOPS);
    run.fails("absent can't be read").await;
    assert_eq!(bed.world().requests(), []);
}

#[tokio::test]
async fn managers_are_believed_by_authority_by_thumbprint_or_for_nothing() {
    let _kept = promises::keeps(&["S0-16"], "the stand-in");
    let bed = Bed::new(2).await;
    let [first, second] = [0, 1].map(|node| bed.server.thumbprint(node));
    for line in [format!("thumbprint: [\"{first}\", \"{second}\"]"), "insecureSkipVerify: true".to_owned()] {
        bed.keep(bed.config(&[&line]), &HOPS).has(&HOPS).await;
    }
    bed.world().forget_requests();
    fs::write(bed.path().join("other.pem"), Authority::new().pem()).unwrap();
    let wrong = "ab".repeat(32);
    for auth in ["auth: basic", "auth: session"] {
        for (line, part) in [
            (
                "caFile: other.pem".to_owned(),
                "is not trusted: its certificate is not signed by an authority in `caFile`",
            ),
            (
                format!("thumbprint: {wrong}"),
                "is not trusted: its certificate has another SHA-256 value than `thumbprint`",
            ),
        ] {
            bed.keep(bed.config(&[&line, auth]), &HOPS).fails(part).await;
        }
    }
    assert_eq!(bed.world().requests(), [], "not even a login reaches a manager that is not believed");
    // The second manager is believed, the first is not.
    bed.keep(bed.config(&[&format!("thumbprint: {second}")]), &HOPS).has(&HOPS).await;
    assert!(bed.world().requests().iter().all(|request| request.node == 1));
}
