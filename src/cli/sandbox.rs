//! `sandbox`, and what a run against a sandbox in the same process needs.

use std::path::{Path, PathBuf};

use okki_sync_sandbox::{Options, Sandbox, Serving};

use super::args::SandboxArgs;
use super::term::{Screen, Signals, print, print_error};
use super::{EXIT_OK, cannot_start};
use crate::app::{DEFAULT_STORE, PipelineSource};
use crate::clock::Clock;
use crate::config::Env;
use crate::store::Address;
use crate::words::say;

/// A sandbox on free loopback ports. It serves until the second value is dropped.
pub(super) async fn start(options: Options) -> std::io::Result<(Sandbox, Serving)> {
    let sandbox = Sandbox::new(options, now_ms);
    let serving = sandbox.serve(0, 0).await?;
    Ok((sandbox, serving))
}

fn now_ms() -> u64 {
    Clock::system().now_ms()
}

/// The pipeline of a sandbox run that names no other.
pub(super) fn pipeline() -> PipelineSource {
    // The name's ending says which language the text is in.
    PipelineSource::Text { name: "sandbox.toml".to_owned(), text: okki_sync_sandbox::PIPELINE.to_owned() }
}

/// Replaces everything in the environment that points at a real system: no call and no credential of a sandbox run
/// may reach one. Its state goes to memory unless `OKKI_SYNC_STORE` names a store.
pub(super) fn environment(env: &Env, serving: &Serving) -> Env {
    let store = env.store().unwrap_or_else(|| "memory:".to_owned());
    Sandbox::environment(serving)
        .iter()
        .fold(env.clone(), |env, (key, value)| env.with(key, value))
        .with("OKKI_SYNC_SECRET", "")
        // A sandbox run sends no notices.
        .with("NOTIFY_WEBHOOK", "")
        .with("NOTIFY_SECRET", "")
        .with("OKKI_SYNC_STORE", &store)
}

/// `sandbox`.
pub(super) async fn serve(env: &Env, screen: Screen, args: &SandboxArgs) -> u8 {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return cannot_start(screen, say!("signals cannot be received"), &error),
    };
    let sandbox = Sandbox::new(args.options(), now_ms);
    let mut serving = match sandbox.serve(args.okki_port, args.target_port).await {
        Ok(serving) => serving,
        Err(error) => return cannot_start(screen, say!("the sandbox cannot start"), &error),
    };
    if let Err(error) = sandbox.serve_page(&mut serving, args.page_port).await {
        return cannot_start(screen, say!("the sandbox's page cannot start"), &error);
    }
    let lines: String =
        Sandbox::environment(&serving).iter().map(|(key, value)| format!("{key}={value}\n")).collect();
    if let Some(path) = &args.env_file
        && let Err(error) = write_whole(path, &lines)
    {
        return cannot_start(screen, say!("{path} cannot be written", path = path.display()), &error);
    }
    print(&lines);
    print_error(&screen.say(&say!(
        "OKKI at {okki}, target at {target}; set these variables for okki-sync in another shell; Ctrl-C ends",
        okki = serving.okki_url,
        target = serving.target_url,
    )));
    if let Some(page) = &serving.page_url {
        print_error(&screen.say(&say!("both sides to look at and to play with: {page}", page)));
    }
    if let Some(store) = store_with_a_state(env) {
        print_error(&screen.say(&say!(
            "{store} holds what earlier runs remember, and this sandbox's target is empty: set OKKI_SYNC_STORE to another \
             directory, or run okki-sync state rebuild first",
            store = store.display(),
        )));
    }
    signals.next().await;
    EXIT_OK
}

/// The directory that runs would use here, if earlier ones have left a state in it.
fn store_with_a_state(env: &Env) -> Option<PathBuf> {
    let address = env.store().unwrap_or_else(|| DEFAULT_STORE.to_owned());
    match Address::parse(&address) {
        Ok(Address::Directory(store)) if store.join("state").is_dir() => Some(store),
        _ => None,
    }
}

/// Writes a file that others may be waiting for: they see all of it or nothing.
pub(super) fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(format!(".{}.part", std::process::id()));
    std::fs::write(&part, text).and_then(|()| std::fs::rename(&part, path)).inspect_err(|_| {
        // The first error is the one that counts.
        let _ = std::fs::remove_file(&part);
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn a_sandbox_run_cannot_reach_the_real_systems() {
        let (_, serving) = start(Options::default()).await.unwrap();
        let real = Env::process()
            .with("OKKI_SYNC_SECRET", "prod")
            .with("OKKI_SYNC_STORE", "")
            .with("OKKI_BASE_URL", "https://real.example")
            .with("TARGET_BASE_URL", "https://real.example");
        let env = environment(&real, &serving);
        assert_eq!(env.get("OKKI_SYNC_SECRET"), None);
        assert_eq!(env.get("OKKI_SYNC_STORE").as_deref(), Some("memory:"));
        for key in ["OKKI_BASE_URL", "TARGET_BASE_URL"] {
            assert!(env.get(key).is_some_and(|url| url.starts_with("http://127.0.0.1")), "{key}");
        }
        let kept = environment(&real.with("OKKI_SYNC_STORE", "file:///tmp/x"), &serving);
        assert_eq!(kept.get("OKKI_SYNC_STORE").as_deref(), Some("file:///tmp/x"));
    }

    #[test]
    fn a_store_with_a_state_is_told_to_whoever_starts_with_an_empty_target() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::process().with("OKKI_SYNC_STORE", &format!("file://{}", dir.path().display()));
        assert_eq!(store_with_a_state(&env), None);
        std::fs::create_dir(dir.path().join("state")).unwrap();
        assert_eq!(store_with_a_state(&env).as_deref(), Some(dir.path()));
        assert_eq!(store_with_a_state(&env.with("OKKI_SYNC_STORE", "memory:")), None);
    }

    #[test]
    fn an_env_file_is_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dev.env");
        write_whole(&path, "A=1\n").unwrap();
        write_whole(&path, "A=2\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "A=2\n");
        assert!(write_whole(&dir.path().join("no/such/dir"), "A=1\n").is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
