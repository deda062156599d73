//! The command line: what each command does, what it prints, and with which code it ends.

mod args;
mod progress;
mod show;
mod state;

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::app::{App, Checked, PipelineSource};
use crate::clock::Clock;
use crate::config::{self, Env, credentials};
use crate::report::{Mode, Status};
use crate::sync::{Outcome, RunRequest};
use okki_sync_sandbox::{Options, Sandbox, Serving};

pub use args::{Args, Catalogue, CheckArgs, Command, PlanArgs, RunArgs, SandboxArgs, SyncArgs, VerifyArgs};
use progress::{How, Shown};
use show::Paint;

/// Done.
const DONE: u8 = 0;
/// Failed.
const FAILED: u8 = 1;
/// The user has something to mend.
const BAD_USAGE: u8 = 2;
/// Done in part: rows are quarantined, differ, or remain.
const IN_PART: u8 = 3;
/// Left at once, as a shell reports a Ctrl-C.
const LEFT_AT_ONCE: u8 = 130;

/// How long a run that was asked to stop may take to end in good order.
const STOP_WITHIN: Duration = Duration::from_secs(2);
/// The pipeline file where nothing else is said.
const DEFAULT_PIPELINE: &str = "pipeline.toml";
/// The demo's catalogue.
const DEMO_GROUPS: usize = 120;
/// The demo's catalogue.
const DEMO_PRODUCTS: usize = 3_000;

/// Does what the command line asks for; answers the exit code.
pub async fn dispatch(args: Args) -> u8 {
    let env = Env::process();
    let screen = Screen::new(&env, args.verbose);
    match args.command {
        Command::Sync(sync) => run(&env, screen, &sync.run, Mode::Sync, sync.allow_mass_delete, false).await,
        Command::Plan(plan) => {
            run(&env, screen, &plan.run, Mode::Plan, plan.allow_mass_delete, plan.all).await
        }
        Command::Verify(verify) => run(&env, screen, &verify.run, Mode::Verify, false, verify.all).await,
        Command::State(command) => state::dispatch(&env, screen, &command).await,
        Command::Sandbox(sandbox) => serve(&sandbox).await,
        Command::Check(check) => check_setup(&env, check).await,
        Command::Schema => schema(),
        Command::Demo => demo(&env, screen).await,
    }
}

/// What the two output streams are, found out once.
#[derive(Debug, Clone, Copy)]
struct Screen {
    /// stdout is a terminal.
    out: bool,
    /// stderr is a terminal that bars can be drawn on.
    err: bool,
    /// Neither `NO_COLOR` nor `TERM=dumb` is set.
    colour: bool,
    /// Logs share stderr.
    verbose: bool,
}

impl Screen {
    fn new(env: &Env, verbose: bool) -> Self {
        let dumb = env.get("TERM").is_some_and(|term| term == "dumb");
        Self {
            out: std::io::stdout().is_terminal(),
            err: std::io::stderr().is_terminal() && !dumb,
            colour: !dumb && env.get("NO_COLOR").is_none(),
            verbose,
        }
    }

    fn paint(self) -> Paint {
        Paint { colour: self.out && self.colour }
    }

    fn progress(self, json: bool) -> How {
        // Where stdout goes into a file or a pipe somebody else reads along: plain lines. Logs would tear bars apart.
        match (self.err && !self.verbose && (self.out || json), json) {
            (true, _) => How::Bars { colour: self.colour },
            (false, false) => How::Lines,
            (false, true) => How::Silent,
        }
    }
}

// A reader that went away (`| head`) is no error of ours, and no reason to panic: writes that fail are let go.

/// The sandbox's clock.
fn wall_clock() -> u64 {
    Clock::system().now_ms()
}

fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// `sync`, `plan` and `verify`.
async fn run(
    env: &Env,
    screen: Screen,
    args: &RunArgs,
    mode: Mode,
    allow_mass_delete: bool,
    all: bool,
) -> u8 {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return cannot_start("signals cannot be received", &error),
    };
    let request = RunRequest {
        full: args.full,
        allow_mass_delete,
        deadline: deadline(args.deadline),
        ..RunRequest::new(mode)
    };
    let asked_for = args.pipeline.clone().or_else(|| env.get("OKKI_SYNC_PIPELINE"));
    // Serves until the run is over: dropped, it would end.
    let mut serving = None;
    let (env, pipeline) = if args.sandbox {
        match Sandbox::new(args.catalogue.options(), wall_clock).serve(0, 0).await {
            Ok(started) => {
                let env = sandboxed(env, serving.insert(started));
                (env, asked_for.map_or_else(sandbox_pipeline, PipelineSource::File))
            }
            Err(error) => return cannot_start("the sandbox cannot start", &error),
        }
    } else {
        (env.clone(), pipeline_file(asked_for))
    };
    let app = App::new(env);
    let Some(outcome) = run_watched(&app, pipeline, &request, screen.progress(args.json), &mut signals).await
    else {
        return LEFT_AT_ONCE;
    };
    if args.json {
        print(&json(&outcome, screen.out));
    } else {
        show_outcome(&outcome, all, screen.paint());
    }
    say_error(&outcome, screen, args.json);
    exit_code(&outcome)
}

/// Beyond what a clock can hold there is no deadline.
fn deadline(after: Option<Duration>) -> Option<Instant> {
    after.and_then(|after| Instant::now().checked_add(after))
}

fn pipeline_file(asked_for: Option<String>) -> PipelineSource {
    PipelineSource::File(asked_for.unwrap_or_else(|| DEFAULT_PIPELINE.to_owned()))
}

fn sandbox_pipeline() -> PipelineSource {
    // The name's ending says which language the text is in.
    PipelineSource::Text { name: "sandbox.toml".to_owned(), text: okki_sync_sandbox::PIPELINE.to_owned() }
}

/// The environment that points at the sandbox, whatever the real one says: no call and no credential
/// of a sandbox run may reach a real system, and no sandbox state a real store unless that was asked for.
fn sandboxed(env: &Env, serving: &Serving) -> Env {
    let store = env.get("OKKI_SYNC_STORE").unwrap_or_else(|| "memory:".to_owned());
    Sandbox::environment(serving)
        .iter()
        .fold(env.clone(), |env, (key, value)| env.with(key, value))
        .with("OKKI_SYNC_SECRET", "")
        // What goes wrong in a sandbox is nothing to tell the group.
        .with("NOTIFY_WEBHOOK", "")
        .with("NOTIFY_SECRET", "")
        .with("OKKI_SYNC_STORE", &store)
}

/// Runs with progress. The first Ctrl-C asks the run to stop; a second one, or a run that does not stop, gives none.
async fn run_watched(
    app: &App,
    pipeline: PipelineSource,
    request: &RunRequest,
    how: How,
    signals: &mut Signals,
) -> Option<Outcome> {
    let shown = Shown::new(how);
    let watch = shown.watch();
    let mut run = std::pin::pin!(app.run(pipeline, request, &*watch));
    let first = tokio::select! {
        outcome = &mut run => Some(outcome),
        () = signals.next() => None,
    };
    let outcome = match first {
        Some(outcome) => Some(outcome),
        None => {
            app.stop();
            shown.note("stopping; press Ctrl-C again to leave at once");
            tokio::select! {
                outcome = &mut run => Some(outcome),
                () = signals.next() => None,
                () = tokio::time::sleep(STOP_WITHIN) => None,
            }
        }
    };
    shown.end();
    if outcome.is_none() {
        complain("left before the run had ended; the next run finds out what the target has taken");
    }
    outcome
}

fn json(outcome: &Outcome, pretty: bool) -> String {
    let report = &outcome.report;
    let text = if pretty { serde_json::to_string_pretty(report) } else { serde_json::to_string(report) };
    // A report of plain numbers and strings always has a JSON form.
    text.map(|text| text + "\n").unwrap_or_default()
}

fn show_outcome(outcome: &Outcome, all: bool, paint: Paint) {
    let tree = show::tree(outcome.report.mode, &outcome.lines, all, paint);
    let gap = if tree.is_empty() { "" } else { "\n" };
    print(&format!("{tree}{gap}{}", show::summary(outcome, paint)));
}

/// A failure's one line on stderr, unless the summary has just said it on the same terminal.
fn say_error(outcome: &Outcome, screen: Screen, json: bool) {
    let seen = screen.out && screen.err && !json;
    if outcome.report.status == Status::Failed
        && !seen
        && let Some(line) = show::error_line(outcome)
    {
        complain(&format!("error: {line}"));
    }
}

fn exit_code(outcome: &Outcome) -> u8 {
    match outcome.report.status {
        Status::Succeeded => DONE,
        Status::Partial | Status::Paused => IN_PART,
        Status::Failed => outcome.error.as_ref().map_or(FAILED, |error| error.kind.exit_code()),
    }
}

fn cannot_start(what: &str, error: &std::io::Error) -> u8 {
    complain(&format!("error: {what}: {error}"));
    FAILED
}

/// `sandbox`.
async fn serve(args: &SandboxArgs) -> u8 {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return cannot_start("signals cannot be received", &error),
    };
    let sandbox = Sandbox::new(args.options(), wall_clock);
    let serving = match sandbox.serve(args.okki_port, args.target_port).await {
        Ok(serving) => serving,
        Err(error) => return cannot_start("the sandbox cannot start", &error),
    };
    let lines: String =
        Sandbox::environment(&serving).iter().map(|(key, value)| format!("{key}={value}\n")).collect();
    if let Some(path) = &args.env_file
        && let Err(error) = write_whole(path, &lines)
    {
        return cannot_start(&format!("{} cannot be written", path.display()), &error);
    }
    print(&lines);
    complain(&format!(
        "OKKI at {}, target at {}; set these variables for okki-sync in another shell; Ctrl-C ends",
        serving.okki_url, serving.target_url
    ));
    signals.next().await;
    DONE
}

/// Writes a file that others may be waiting for: it is there whole, or not at all.
fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.part", std::process::id()));
    std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, path)).inspect_err(|_| {
        // What remains of a failed write is of no use; the error that counts is the first one.
        let _ = std::fs::remove_file(&beside);
    })
}

/// `check`.
async fn check_setup(env: &Env, args: CheckArgs) -> u8 {
    let file = args
        .pipeline
        .or_else(|| env.get("OKKI_SYNC_PIPELINE"))
        .unwrap_or_else(|| DEFAULT_PIPELINE.to_owned());
    let checked = App::new(env.clone()).check(PipelineSource::File(file.clone())).await;
    let mistakes = &checked.mistakes;
    let text = match (args.json, mistakes.is_empty()) {
        (true, _) => format!("{}\n", checked_json(&file, &checked)),
        (false, true) => {
            format!("ok: pipeline {}\nok: credentials\nok: store\n", show::clean(&file, usize::MAX))
        }
        (false, false) => {
            mistakes.iter().map(|(_, m)| show::clean(&m.to_string(), usize::MAX) + "\n").collect()
        }
    };
    print(&text);
    if mistakes.is_empty() { DONE } else { BAD_USAGE }
}

/// What `check --json` prints.
fn checked_json(file: &str, checked: &Checked) -> Value {
    let config = checked.config.as_ref();
    let diagnostics: Vec<Value> = checked
        .mistakes
        .iter()
        .map(|(part, m)| json!({ "kind": part, "place": m.place, "message": m.message, "help": m.help }))
        .collect();
    json!({
        "pipeline": file,
        "connection": config.map(|config| &config.connection),
        "target": config.map(|config| config.target.endpoint.kind()),
        "needs": config.map_or(&[][..], |config| credentials::needed(&config.target.endpoint)),
        "optional": credentials::OPTIONAL,
        "diagnostics": diagnostics,
    })
}

/// `schema`.
fn schema() -> u8 {
    match serde_json::to_string_pretty(&config::schema()) {
        Ok(text) => {
            print(&format!("{text}\n"));
            DONE
        }
        Err(error) => {
            complain(&format!("error: the schema cannot be printed: {error}"));
            FAILED
        }
    }
}

/// `demo`: the whole story in the sandbox. Ends early where a step fails.
async fn demo(env: &Env, screen: Screen) -> u8 {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return cannot_start("signals cannot be received", &error),
    };
    let options = Options { groups: DEMO_GROUPS, products: DEMO_PRODUCTS, ..Options::default() };
    let sandbox = Sandbox::new(options, wall_clock);
    let serving = match sandbox.serve(0, 0).await {
        Ok(serving) => serving,
        Err(error) => return cannot_start("the sandbox cannot start", &error),
    };
    // One App for all steps: a memory store lives as long as its App. A demo leaves nothing behind.
    let app = App::new(sandboxed(env, &serving).with("OKKI_SYNC_STORE", "memory:"));
    let steps = [
        (Mode::Sync, "1. sync: the target is empty, everything is new"),
        (Mode::Plan, "2. people have changed the catalogue in OKKI; plan: what would change"),
        (Mode::Sync, "3. sync: only the changes go out"),
        (Mode::Verify, "4. verify: the target read back and compared"),
    ];
    let mut worst = DONE;
    for (mode, heading) in steps {
        if mode == Mode::Plan {
            sandbox.change_as_people_do();
        }
        print(&format!("\n{}\n", screen.paint().bold(heading)));
        let request = RunRequest::new(mode);
        let how = screen.progress(false);
        let Some(outcome) = run_watched(&app, sandbox_pipeline(), &request, how, &mut signals).await else {
            return LEFT_AT_ONCE;
        };
        show_outcome(&outcome, false, screen.paint());
        say_error(&outcome, screen, false);
        // What remains after a pause or a failure would make the next steps tell another story.
        if matches!(outcome.report.status, Status::Failed | Status::Paused) {
            return exit_code(&outcome);
        }
        worst = worst.max(exit_code(&outcome));
    }
    worst
}

/// Ctrl-C and, where there is such a thing, SIGTERM.
struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    #[cfg(not(unix))]
    fn listen() -> std::io::Result<Self> {
        Ok(Self {})
    }

    /// The next one.
    #[cfg(unix)]
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// The next one; where none can be received, none comes.
    #[cfg(not(unix))]
    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn a_sandbox_run_cannot_reach_the_real_systems() {
        let serving = Sandbox::new(Options::default(), wall_clock).serve(0, 0).await.unwrap();
        let real = Env::process()
            .with("OKKI_SYNC_SECRET", "prod")
            .with("OKKI_SYNC_STORE", "")
            .with("OKKI_BASE_URL", "https://real.example")
            .with("TARGET_BASE_URL", "https://real.example");
        let env = sandboxed(&real, &serving);
        assert_eq!(env.get("OKKI_SYNC_SECRET"), None);
        assert_eq!(env.get("OKKI_SYNC_STORE").as_deref(), Some("memory:"));
        for key in ["OKKI_BASE_URL", "TARGET_BASE_URL"] {
            assert!(env.get(key).is_some_and(|url| url.starts_with("http://127.0.0.1")), "{key}");
        }
        let kept = sandboxed(&real.with("OKKI_SYNC_STORE", "file:///tmp/x"), &serving);
        assert_eq!(kept.get("OKKI_SYNC_STORE").as_deref(), Some("file:///tmp/x"));
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
