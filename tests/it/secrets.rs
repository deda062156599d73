//! Credentials and tokens stay where they belong.

use std::io::Write;
use std::sync::{Arc, Mutex, Once};

use okki_sync::testing::report::Mode;
use okki_sync::testing::sync::Outcome;
use okki_sync_sandbox::faults::{Endpoint, FaultKind};
use okki_sync_sandbox::{Options, Sandbox};
use tracing_subscriber::filter::{Targets, dynamic_filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::support::{World, answer, env, http, qeasy, request, small};

#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Lines {
    /// Every line that this program logs, down to the last detail. (The sandbox is no part of it.)
    fn listen(&self) -> tracing::subscriber::DefaultGuard {
        self.listen_as("trace,okki_sync_sandbox=off")
    }

    /// The same, and of the libraries what the program lets through: see `logging.rs`.
    pub fn listen_to_the_program(&self) -> tracing::subscriber::DefaultGuard {
        self.listen_as("warn,okki_sync=trace,okki_sync_sandbox=off")
    }

    fn listen_as(&self, filter: &str) -> tracing::subscriber::DefaultGuard {
        // A line that nobody listens to when it first comes is switched off for all threads, and a test that begins
        // to listen at that moment never sees it. Behind this subscriber each line is asked about each time.
        static NOTHING_IS_SWITCHED_OFF: Once = Once::new();
        NOTHING_IS_SWITCHED_OFF.call_once(|| {
            let silent = tracing_subscriber::registry().with(dynamic_filter_fn(|_, _| false));
            tracing::subscriber::set_global_default(silent).unwrap();
        });
        let filter: Targets = filter.parse().unwrap();
        let lines = tracing_subscriber::fmt::layer().with_writer(self.clone()).with_ansi(false);
        tracing::subscriber::set_default(tracing_subscriber::registry().with(lines).with(filter))
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// What must not show: the credentials, and every token that travelled.
fn secrets(world: &World) -> Vec<String> {
    let known = Sandbox::credentials();
    let mut secrets =
        vec![known.okki_client_secret, known.qeasy_app_key, known.qeasy_app_secret, known.target_token];
    for seen in world.source.seen().into_iter().chain(world.target.seen()) {
        let bearer = seen.authorization.map(|value| value.strip_prefix("Bearer ").unwrap().to_owned());
        let in_query = seen.uri.split_once("access_token=").map(|(_, token)| token.to_owned());
        secrets.extend(bearer);
        secrets.extend(in_query);
    }
    secrets.sort_unstable();
    secrets.dedup();
    secrets
}

async fn assert_silent(world: &World, outcomes: &[Outcome], lines: &Lines) {
    let mut told = vec![("log", lines.text())];
    for outcome in outcomes {
        told.push(("report", serde_json::to_string(&outcome.report).unwrap()));
        told.push(("outcome", format!("{outcome:?}")));
        let rejected: Vec<String> =
            outcome.rejected.iter().map(|row| serde_json::to_string(row).unwrap()).collect();
        told.push(("rejected", rejected.join("\n")));
        for path in [
            format!("reports/it/{}.json", outcome.report.run_id),
            format!("quarantine/it/{}.jsonl", outcome.report.run_id),
        ] {
            told.push(("store", world.stored(&path).await.unwrap_or_default()));
        }
    }
    told.push(("state", world.state().await.unwrap_or_default()));
    for secret in secrets(world) {
        assert!(secret.len() >= 8, "{secret} is too short to look for");
        for (place, text) in &told {
            // Half of a secret is one too many; the sandbox's own begin with its name, so look at their ends as well.
            let at = text.find(&secret).or_else(|| text.find(&secret[secret.len() - 7..]));
            assert!(at.is_none(), "{place} shows a secret: {}", &text[at.unwrap().saturating_sub(200)..]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_secret_shows_after_runs_with_many_faults() {
    let known = Sandbox::credentials();
    // Each side echoes what it was sent, also where messages are cut short.
    let okki = |code| {
        let (id, secret, long) = (&known.okki_client_id, &known.okki_client_secret, "x".repeat(105));
        FaultKind::BodyCode(code, format!("bad {id} {secret} {long} {secret}"))
    };
    let qeasy_echo = |code| {
        let (key, secret, long) = (&known.qeasy_app_key, &known.qeasy_app_secret, "x".repeat(100));
        FaultKind::BodyCode(code, format!("bad {key} {secret} {long} {secret} {key}"))
    };
    let http_echo = |code| {
        let (token, long) = (&known.target_token, "x".repeat(120));
        FaultKind::BodyCode(code, format!("bad {token} {long} {token}"))
    };
    for text in [
        qeasy("groups-with-items", "max_rows_per_batch = 5"),
        qeasy("groups-with-items", "max_rows_per_batch = 5\ntoken_in = \"query\""),
        http("groups-with-items", "max_rows_per_batch = 5"),
    ] {
        let lines = Lines::default();
        let _guard = lines.listen();
        let world = World::new(Options { dirty: true, ..small() }, text);
        let mut outcomes = Vec::new();
        let (store, token) = (Endpoint::QeasyStore, Endpoint::QeasyToken);
        for (at, fault, times) in [
            (Endpoint::OkkiToken, okki(500), 1),
            (Endpoint::OkkiToken, okki(400), 9),
            (Endpoint::OkkiToken, FaultKind::NotJson, 9),
            (Endpoint::OkkiGroups, okki(404), 1),
            (Endpoint::OkkiGroups, okki(401), 9),
            // More than the windows that are read again can use up.
            (Endpoint::OkkiProducts, okki(500), 30),
            (Endpoint::OkkiProducts, FaultKind::LostAfter, 30),
            (Endpoint::OkkiProducts, FaultKind::AccessDenied, 30),
            (token, qeasy_echo(40_101), 9),
            (token, qeasy_echo(50_001), 9),
            (token, FaultKind::LostBefore, 9),
            (store, qeasy_echo(40_102), 9),
            (store, qeasy_echo(40_401), 1),
            (store, qeasy_echo(50_001), 9),
            (store, FaultKind::Truncated, 9),
            (store, FaultKind::Redirect("https://evil.example/".to_owned()), 1),
            (store, qeasy_echo(40_001), 1000),
            (store, qeasy_echo(1), 3),
            (store, qeasy_echo(42_901), 1),
            (Endpoint::HttpTarget, http_echo(401), 1),
            (Endpoint::HttpTarget, http_echo(7), 1000),
            (Endpoint::HttpTarget, FaultKind::Status(500), 9),
            (Endpoint::HttpTarget, FaultKind::Lockout, 1),
        ] {
            world.fault(at, fault, times, 0);
            // Something to write for every run, so that the target's faults strike, too.
            world.sandbox.edit(|catalogue| {
                for group in catalogue.groups.iter_mut().filter(|group| !group.name.trim().is_empty()) {
                    group.name.push('!');
                }
            });
            outcomes.push(world.sync().await);
            world.sandbox.clear_faults();
            // Tokens expire meanwhile, so that faults of the login strike, too.
            world.wind(30_000).await;
        }
        outcomes.push(world.sync().await);
        outcomes.push(world.verify().await);
        let failed = outcomes.iter().filter(|outcome| outcome.error.is_some()).count();
        assert!(failed >= 9, "the faults hardly struck: {failed}");
        let refused = |outcome: &Outcome| outcome.rejected.iter().any(|row| row.reason.contains("bad …"));
        assert!(outcomes.iter().any(refused), "no refusal reached the quarantine");
        assert!(!lines.text().is_empty());
        assert_silent(&world, &outcomes, &lines).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_echoes_our_token_is_not_quoted() {
    let lines = Lines::default();
    let _guard = lines.listen();
    let source = axum::Router::new().fallback(|request: axum::extract::Request| async move {
        if request.uri().path().ends_with("access_token") {
            return answer(r#"{"access_token":"echoed-token-0123456789","expires_in":28800}"#);
        }
        let sent = request.headers()["authorization"].to_str().unwrap().to_owned();
        answer(format!(r#"{{"code":404,"message":"no route for {sent}"}}"#))
    });
    let world = World::fed_by(source, qeasy("groups", ""));
    let outcome = world.sync().await;
    assert!(outcome.error.as_ref().unwrap().message.contains("no route for"));
    assert_silent(&world, &[outcome], &lines).await;
}

#[tokio::test(start_paused = true)]
async fn a_header_s_value_may_be_what_success_asks_for_and_is_not_quoted() {
    let lines = Lines::default();
    let _guard = lines.listen();
    let text = http(
        "groups",
        "headers = { X-Tenant = \"acme-tenant\" }\nsuccess = { \"/tenant\" = \"acme-tenant\", \"/code\" = 0 }",
    );
    let world = World::new(small(), text.clone()).with_target(axum::Router::new().fallback(
        |request: axum::extract::Request| async move {
            let tenant = request.headers()["x-tenant"].to_str().unwrap().to_owned();
            answer(format!(r#"{{"code":0,"tenant":"{tenant}","message":"for {tenant}"}}"#))
        },
    ));
    let outcome = world.sync_well().await;
    assert_eq!(outcome.report.target.written, 40);
    let world = World::new(small(), text).with_target(axum::Router::new().fallback(|| async {
        answer(r#"{"code":7,"tenant":"acme-tenant","message":"no room for acme-tenant"}"#)
    }));
    let outcome = world.sync().await;
    assert!(
        outcome.rejected[0].reason.contains("/code is not 0: no room for …"),
        "{}",
        outcome.rejected[0].reason
    );
    let told = format!("{outcome:?}{}", lines.text());
    assert!(!told.contains("acme-tenant"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn refused_credentials_are_not_quoted() {
    let lines = Lines::default();
    let _guard = lines.listen();
    for name in ["OKKI_CLIENT_SECRET", "QEASY_APP_SECRET", "OKKI_CLIENT_ID", "QEASY_APP_KEY"] {
        let world = World::new(small(), qeasy("groups", "")).again(env().with(name, "wrong-but-secret-0815"));
        let outcome = world.run(&request(Mode::Sync), |_| {}).await;
        assert_eq!(outcome.error.as_ref().unwrap().kind.exit_code(), 2);
        let told = format!("{outcome:?}{}", lines.text());
        assert!(!told.contains("wrong-but-secret-0815"), "{told}");
        assert_silent(&world, &[outcome], &lines).await;
    }
}
