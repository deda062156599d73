//! OKKI's readings of its own envelope, its tokens and its refusals.

use std::sync::{Arc, Once};
use std::time::Duration;

use okki_sync::testing::error::{ErrorKind, Side};
use okki_sync::testing::report::Status;
use okki_sync::testing::sync::Progress;
use okki_sync_sandbox::faults::{Endpoint, FaultKind};
use okki_sync_sandbox::{self, Options};

use crate::support::{World, env, qeasy, request, small};

const SHAPE: &str = "groups-with-items";

async fn arrives(change: impl FnOnce(&mut Options)) {
    let mut options = small();
    change(&mut options);
    let world = World::new(options, qeasy(SHAPE, ""));
    let outcome = world.sync_well().await;
    world.assert_complete();
    assert_eq!((outcome.report.source.groups, outcome.report.source.products), (40, 300));
    assert_eq!(outcome.report.plan.create, 40);
}

#[tokio::test(start_paused = true)]
async fn success_is_code_200_or_0_or_no_code_at_all() {
    for code in [Some(200), Some(0), None] {
        arrives(|options| options.success_code = code).await;
    }
}

#[tokio::test(start_paused = true)]
async fn msg_stands_for_message() {
    arrives(|options| options.msg_key = true).await;
}

#[tokio::test(start_paused = true)]
async fn ids_may_be_strings() {
    arrives(|options| options.ids_as_strings = true).await;
}

#[tokio::test(start_paused = true)]
async fn the_total_may_be_called_total_item() {
    arrives(|options| options.total_item = true).await;
}

#[tokio::test(start_paused = true)]
async fn a_token_without_expires_in_lasts() {
    arrives(|options| options.expires_in = false).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_caps_the_page_size_is_read_to_the_end() {
    arrives(|options| options.max_page_size = 20).await;
}

#[tokio::test(start_paused = true)]
async fn a_failing_body_code_under_http_200_is_no_success() {
    for at in [Endpoint::OkkiGroups, Endpoint::OkkiProducts] {
        let world = World::new(small(), qeasy(SHAPE, ""));
        world.fault(at, FaultKind::BodyCode(404, "数据不存在".to_owned()), 1, 0);
        let outcome = world.sync().await;
        let error = outcome.error.unwrap();
        assert_eq!((outcome.report.status, error.kind), (Status::Failed, ErrorKind::BadAnswer(Side::Source)));
        assert!(error.to_string().contains("404") && error.to_string().contains("数据不存在"), "{error}");
        assert_eq!(world.target_calls(), 0);
        assert_eq!(world.state().await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_server_code_under_http_200_is_tried_again() {
    for code in [500, -1] {
        for (at, after) in [(Endpoint::OkkiGroups, 0), (Endpoint::OkkiProducts, 1)] {
            let world = World::new(small(), qeasy(SHAPE, ""));
            world.fault(at, FaultKind::BodyCode(code, "系统繁忙".to_owned()), 1, after);
            let outcome = world.sync_well().await;
            assert_eq!(outcome.report.source.retries, 1);
            world.assert_complete();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn access_denied_under_http_200_leads_to_one_new_token() {
    let world = World::new(small(), qeasy(SHAPE, ""));
    world.fault(Endpoint::OkkiProducts, FaultKind::AccessDenied, 1, 1);
    world.sync_well().await;
    world.assert_complete();
    assert_eq!(world.calls(Endpoint::OkkiToken), 2);
}

#[tokio::test(start_paused = true)]
async fn access_denied_for_every_token_fails_and_writes_nothing() {
    let world = World::new(small(), qeasy(SHAPE, ""));
    world.fault(Endpoint::OkkiGroups, FaultKind::AccessDenied, 100, 0);
    let outcome = world.sync().await;
    assert_eq!(outcome.error.unwrap().kind, ErrorKind::CredentialsRefused(Side::Source));
    assert_eq!((world.calls(Endpoint::OkkiToken), world.calls(Endpoint::OkkiGroups)), (2, 2));
    assert_eq!(world.target_calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn tokens_that_are_revoked_in_the_middle_of_a_run_are_replaced() {
    let world = World::new(small(), qeasy(SHAPE, "max_rows_per_batch = 10"));
    let sandbox = world.sandbox.clone();
    let (read, written) = (Arc::new(Once::new()), Arc::new(Once::new()));
    let (reading, writing) = (Arc::clone(&read), Arc::clone(&written));
    let outcome = world
        .run(&request(okki_sync::testing::report::Mode::Sync), move |progress| match progress {
            Progress::Reading { read: 100.., .. } => reading.call_once(|| sandbox.revoke_tokens()),
            Progress::Writing { .. } => writing.call_once(|| sandbox.revoke_tokens()),
            _ => {}
        })
        .await;
    assert!(read.is_completed() && written.is_completed());
    assert_eq!(outcome.report.status, Status::Succeeded, "{:?}", outcome.report);
    world.assert_complete();
    assert_eq!((world.calls(Endpoint::OkkiToken), world.calls(Endpoint::QeasyToken)), (2, 2));
    assert_eq!(outcome.report.target.written, 40);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_nearly_expired_is_not_trusted() {
    for expires_in in [true, false] {
        let options = Options { expires_in, token_lifetime: Duration::from_secs(3), ..small() };
        let text = qeasy(SHAPE, "").replace("max_requests_per_second = 5.0", "max_requests_per_second = 1.0");
        let world = World::new(options, text);
        world.sync_well().await;
        world.assert_complete();
        assert!(world.calls(Endpoint::OkkiToken) >= 2);
    }
}

#[tokio::test(start_paused = true)]
async fn wrong_source_credentials_are_named_and_nothing_is_written() {
    let world =
        World::new(small(), qeasy(SHAPE, "")).again(env().with("OKKI_CLIENT_SECRET", "not-the-secret"));
    let outcome = world.sync().await;
    let error = outcome.error.unwrap();
    assert_eq!(error.kind, ErrorKind::CredentialsRefused(Side::Source));
    assert_eq!((error.kind.exit_code(), outcome.report.status), (2, Status::Failed));
    assert!(error.to_string().contains("OKKI_CLIENT_SECRET"), "{error}");
    assert!(!error.to_string().contains("not-the-secret"));
    assert_eq!(world.calls(Endpoint::OkkiToken), 1, "a refused login is not tried again");
    assert_eq!((world.target_calls(), world.rows().len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn wrong_target_credentials_are_named_in_every_reading_of_the_codes() {
    use okki_sync_sandbox::CodeReading::{A, B, C};
    for codes in [A, B, C] {
        let world = World::new(Options { codes, ..small() }, qeasy(SHAPE, ""));
        let world = world.again(env().with("QEASY_APP_SECRET", "wrongsecretwrong0000"));
        let outcome = world.sync().await;
        let error = outcome.error.unwrap();
        assert_eq!(error.kind, ErrorKind::CredentialsRefused(Side::Target), "{error}");
        assert_eq!(error.kind.exit_code(), 2);
        assert_eq!((world.calls(Endpoint::QeasyToken), world.calls(Endpoint::QeasyStore)), (1, 0));
        assert!(world.rows().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_bearer_token_of_the_http_target_is_named() {
    let world =
        World::new(small(), crate::support::http(SHAPE, "")).again(env().with("TARGET_TOKEN", "wrong-token"));
    let outcome = world.sync().await;
    assert_eq!(outcome.error.unwrap().kind, ErrorKind::CredentialsRefused(Side::Target));
    assert_eq!((world.calls(Endpoint::HttpTarget), world.rows().len()), (1, 0));
}
