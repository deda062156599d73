//! `sync`, `plan` and `verify`: one run with its progress, Ctrl-C, its output and its exit code.

use std::time::Duration;

use tokio::time::Instant;

use super::args::{OnlyArgs, PlanArgs, RunArgs, SyncArgs, VerifyArgs};
use super::progress::ProgressView;
use super::term::{Screen, Signals, Style, print, print_error};
use super::{
    EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_OK, EXIT_PARTIAL, cannot_start, failed, pipeline, sandbox, summary,
    tree, values,
};
use crate::app::{App, PipelineSource};
use crate::config::Env;
use crate::error::{Error, ErrorKind};
use crate::report::{Mode, Status};
use crate::sync::{CHANGES, Digest, Only, Outcome, RunRequest, Watch};
use crate::words::say;

/// How long a run may take after the first Ctrl-C to save what was acknowledged, which a slow store delays. Who does
/// not want to wait presses it again; containers are killed ten seconds after SIGTERM.
const STOP_WITHIN: Duration = Duration::from_secs(8);

/// What one of the three commands was asked to do.
pub(super) struct RunCommand<'a> {
    mode: Mode,
    allow_mass_delete: bool,
    only: Only,
    approve: Option<Digest>,
    from_target: bool,
    changes: usize,
    lines: tree::Lines,
    args: &'a RunArgs,
}

impl<'a> RunCommand<'a> {
    pub(super) fn sync(args: &'a SyncArgs) -> Self {
        Self {
            mode: Mode::Sync,
            allow_mass_delete: args.allow_mass_delete,
            only: only(&args.only),
            approve: args.approve.clone(),
            from_target: false,
            changes: CHANGES,
            lines: tree::Lines::First,
            args: &args.run,
        }
    }

    pub(super) fn plan(args: &'a PlanArgs) -> Self {
        Self {
            mode: Mode::Plan,
            allow_mass_delete: args.allow_mass_delete,
            only: only(&args.only),
            approve: None,
            from_target: args.from_target,
            changes: args.changes,
            lines: tree::Lines::asked(args.all),
            args: &args.run,
        }
    }

    pub(super) fn verify(args: &'a VerifyArgs) -> Self {
        Self {
            mode: Mode::Verify,
            allow_mass_delete: false,
            only: Only::default(),
            approve: None,
            from_target: false,
            changes: args.changes,
            lines: tree::Lines::asked(args.all),
            args: &args.run,
        }
    }

    fn request(&self) -> RunRequest {
        RunRequest {
            mode: self.mode,
            full: self.args.full,
            allow_mass_delete: self.allow_mass_delete,
            // A deadline beyond what the clock can express is no deadline.
            deadline: self.args.deadline.and_then(|after| Instant::now().checked_add(after)),
            only: self.only.clone(),
            approve: self.approve.clone(),
            from_target: self.from_target,
            changes: self.changes,
        }
    }
}

fn only(args: &OnlyArgs) -> Only {
    Only { ids: args.only_ids.clone(), groups: args.only_groups.clone() }
}

pub(super) async fn run(env: &Env, screen: Screen, command: &RunCommand<'_>) -> u8 {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return cannot_start(screen, say!("signals cannot be received"), &error),
    };
    let args = command.args;
    let file = args.pipeline.as_ref();
    // The sandbox stops serving when it is dropped, so it lives as long as the run.
    let (app, from, _serving) = if args.sandbox {
        let serving = match sandbox::start(args.catalogue.options()).await {
            Ok((_, serving)) => serving,
            Err(error) => return cannot_start(screen, say!("the sandbox cannot start"), &error),
        };
        let app = App::new(sandbox::environment(env, &serving));
        let named = file.is_some() || env.pipeline().is_some();
        let from = if named { pipeline(&app, file) } else { sandbox::pipeline() };
        (app, from, Some(serving))
    } else {
        let app = App::new(env.clone());
        let from = pipeline(&app, file);
        (app, from, None)
    };
    let view = if args.json { screen.view_with_json() } else { screen.view() };
    let Some(outcome) = run_watched(&app, from, &command.request(), view, &mut signals).await else {
        return EXIT_INTERRUPTED;
    };
    if args.json {
        print(&json(&outcome, screen.out));
        print_failure(&outcome, screen);
    } else {
        show(&outcome, command.lines, screen);
    }
    exit_code(&outcome)
}

/// Runs with progress. `None` if the run was left before its end.
pub(super) async fn run_watched(
    app: &App,
    from: PipelineSource,
    request: &RunRequest,
    view: ProgressView,
    signals: &mut Signals,
) -> Option<Outcome> {
    let watch = view.watch();
    stoppable(app, app.run(from, request, &*watch), &view, signals).await
}

/// Does a command's work with progress. `Err` is the code that the command ends with where a person left it.
pub(super) async fn watched<T>(
    env: &Env,
    screen: Screen,
    json: bool,
    work: impl AsyncFnOnce(&App, &Watch) -> T,
) -> std::result::Result<T, u8> {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return Err(cannot_start(screen, say!("signals cannot be received"), &error)),
    };
    let app = App::new(env.clone());
    let view = if json { screen.view_with_json() } else { screen.view() };
    let watch = view.watch();
    stoppable(&app, work(&app, &*watch), &view, &mut signals).await.ok_or(EXIT_INTERRUPTED)
}

/// As [`failed`]; a command that ran out of time or calls has left work.
pub(super) fn failed_or_paused(screen: Screen, error: &Error) -> u8 {
    let code = failed(screen, error);
    if matches!(error.kind, ErrorKind::Interrupted | ErrorKind::Throttled(_)) { EXIT_PARTIAL } else { code }
}

/// Works with progress. The first Ctrl-C asks the app to stop. `None` if a second one comes, or if the work does not
/// stop in time.
pub(super) async fn stoppable<T>(
    app: &App,
    work: impl Future<Output = T>,
    view: &ProgressView,
    signals: &mut Signals,
) -> Option<T> {
    let mut work = std::pin::pin!(work);
    let first = tokio::select! {
        done = &mut work => Some(done),
        () = signals.next() => None,
    };
    let done = match first {
        Some(done) => Some(done),
        None => {
            app.stop();
            view.note(&say!("stopping; press Ctrl-C again to leave at once"));
            tokio::select! {
                done = &mut work => Some(done),
                () = signals.next() => None,
                () = tokio::time::sleep(STOP_WITHIN) => None,
            }
        }
    };
    view.end();
    if done.is_none() {
        view.error(&say!("left before the run had ended; the next run finds out what the target has taken"));
    }
    done
}

/// Prints an outcome for people.
pub(super) fn show(outcome: &Outcome, lines: tree::Lines, screen: Screen) {
    screen.print(&text(outcome, lines, screen.style()));
    // On a terminal that shows both streams the summary has just said it.
    if !(screen.out && screen.err) {
        print_failure(outcome, screen);
    }
}

fn text(outcome: &Outcome, lines: tree::Lines, style: Style) -> String {
    let tree = match outcome.report.mode {
        Mode::Sync | Mode::Undo => values::rows(&outcome.changes, outcome.more_changes, style),
        Mode::Plan | Mode::Verify => {
            tree::tree(outcome.report.mode, &outcome.lines, &outcome.changes, lines, style)
        }
    };
    let gap = if tree.is_empty() { "" } else { "\n" };
    format!("{tree}{gap}{}", summary::summary(outcome, style))
}

fn json(outcome: &Outcome, pretty: bool) -> String {
    let report = &outcome.report;
    let text = if pretty { serde_json::to_string_pretty(report) } else { serde_json::to_string(report) };
    // A report of plain numbers and strings always has a JSON form.
    text.map(|text| text + "\n").unwrap_or_default()
}

/// A failure's one line on stderr.
pub(super) fn print_failure(outcome: &Outcome, screen: Screen) {
    if outcome.report.status == Status::Failed
        && let Some(line) = summary::error_line(outcome, screen.lang)
    {
        print_error(&screen.say(&say!("error: {line}", line)));
    }
}

pub(super) fn exit_code(outcome: &Outcome) -> u8 {
    match outcome.report.status {
        Status::Succeeded => EXIT_OK,
        Status::Partial | Status::Paused => EXIT_PARTIAL,
        Status::Failed => outcome.error.as_ref().map_or(EXIT_FAILURE, |error| error.kind.exit_code()),
    }
}
