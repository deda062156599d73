//! The sandbox's page over real sockets, beside the sandbox that a real run works on.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use okki_sync_sandbox::{Options, Sandbox};
use reqwest::StatusCode;

use crate::support::{World, qeasy, small};

/// A client that knows no proxy: the page is on this machine.
fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_prints_the_page_s_address_and_the_page_answers_there() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_okki-sync"))
        .args(["sandbox", "--groups", "12", "--products", "60"])
        .env_clear()
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let told = lines.map(Result::unwrap).find(|line| line.starts_with("both sides to look at")).unwrap();
    let address = told.rsplit(' ').next().unwrap().to_owned();
    assert!(address.starts_with("http://127.0.0.1:"), "{told}");
    let answer = client().get(&address).header("accept-language", "zh-CN").send().await;
    let foreign = client().get(&address).header("host", "evil.example").send().await;
    let control = client().get(format!("{address}_sandbox/stats")).send().await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(answer.unwrap().text().await.unwrap().contains("两端对比"));
    assert_eq!(foreign.unwrap().status(), StatusCode::FORBIDDEN);
    assert_eq!(control.unwrap().status(), StatusCode::NOT_FOUND, "the page's port has no control endpoints");
}

#[tokio::test(start_paused = true)]
async fn after_a_sync_the_page_finds_both_sides_in_step() {
    use tower::ServiceExt as _;
    let glance = async |sandbox: &Sandbox| {
        let request = axum::extract::Request::get("/now").header("host", "localhost");
        let answer = sandbox.page().oneshot(request.body(axum::body::Body::empty()).unwrap()).await.unwrap();
        let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        let now: serde_json::Value = serde_json::from_slice(&body).unwrap();
        now["glance"].as_str().unwrap().to_owned()
    };
    for shape in ["groups-with-items", "products"] {
        let world = World::new(Options { synthetic_group: false, ..small() }, qeasy(shape, ""));
        assert!(glance(&world.sandbox).await.contains("The target is empty"), "{shape}");
        world.sync_well().await;
        assert!(glance(&world.sandbox).await.contains("Both sides are in step"), "{shape}");
        world.sandbox.simulate_edits();
        assert!(!glance(&world.sandbox).await.contains("in step"), "{shape}");
        world.sync_well().await;
        let after = glance(&world.sandbox).await;
        assert!(after.contains("Both sides are in step"), "{shape}: {after}");
    }
}

#[test]
fn the_demo_ends_with_the_way_to_the_page() {
    let output = Command::new(env!("CARGO_BIN_EXE_okki-sync")).arg("demo").env_clear().output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    let last = told.trim_end().lines().next_back().unwrap();
    assert!(last.contains("okki-sync sandbox") && last.contains("page"), "{last}");
}
