//! `state show` prints what the target has acknowledged; `state rebuild` restores that record when it is lost.

use std::fmt::Write as _;

use serde_json::json;

use super::args::{StateCommand, StateRebuildArgs, StateShowArgs};
use super::progress::ProgressView;
use super::run::stoppable;
use super::term::{Screen, Signals, print, print_error, sanitize};
use super::{EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_OK, EXIT_PARTIAL, EXIT_USAGE, cannot_start, pipeline};
use crate::app::{App, StoredState};
use crate::config::Env;
use crate::error::{Error, ErrorKind};
use crate::state::{Acknowledged, State};
use crate::sync::Extras;

/// Refused rows shown; the rest is counted.
const REFUSED_SHOWN: usize = 20;

pub(super) async fn dispatch(env: &Env, screen: Screen, command: &StateCommand) -> u8 {
    let done = match command {
        StateCommand::Show(args) => show_state(env, args).await.map(|()| EXIT_OK),
        StateCommand::Rebuild(args) => rebuild(env, screen, args).await,
    };
    match done {
        Ok(code) => code,
        Err(error) if matches!(error.kind, ErrorKind::Interrupted | ErrorKind::Throttled(_)) => {
            print_error(&format!("paused: {}", sanitize(&error.line(), usize::MAX)));
            print_error("the state is as it was; state rebuild goes on from here when it is called again");
            EXIT_PARTIAL
        }
        Err(error) => {
            print_error(&format!("error: {}", sanitize(&error.line(), usize::MAX)));
            if error.kind.exit_code() == EXIT_USAGE { EXIT_USAGE } else { EXIT_FAILURE }
        }
    }
}

async fn show_state(env: &Env, args: &StateShowArgs) -> Result<(), Error> {
    let app = App::new(env.clone());
    let stored = app.stored_state(pipeline(&app, args.pipeline.as_ref())).await?;
    let text = if args.json { as_json(&stored) } else { as_text(&stored) };
    print(&text);
    Ok(())
}

fn announced(state: &State) -> usize {
    state.rows.iter().filter(|(_, _, row)| !matches!(row, Acknowledged::Known(_))).count()
}

fn as_json(stored: &StoredState) -> String {
    let state = stored.state.as_ref().map(|(state, target)| {
        let refused: Vec<_> =
            state.refused.iter().map(|(id, refusal)| json!({"id": id, "refusal": refusal})).collect();
        json!({
            "target": target,
            "acknowledged": state.rows.len() - announced(state),
            "announced": announced(state),
            "refused": refused,
            "runs": state.runs,
            "source_products": state.source_products,
        })
    });
    let whole =
        json!({"connection": stored.connection, "at": stored.at, "state": state, "lease": stored.lease});
    format!("{whole}\n")
}

fn as_text(stored: &StoredState) -> String {
    let mut text = format!("connection   {}\nstate        {}\n", stored.connection, stored.at);
    // Writing to a string cannot fail.
    match &stored.state {
        None => text.push_str("             nothing yet: the next sync writes every row\n"),
        Some((state, target)) => {
            let _ = writeln!(text, "target       {}", sanitize(target, usize::MAX));
            let _ = writeln!(text, "acknowledged {} rows", state.rows.len() - announced(state));
            let _ = writeln!(text, "announced    {} rows (sent perhaps, not acknowledged)", announced(state));
            let _ = writeln!(text, "refused      {} rows", state.refused.len());
            for (id, refusal) in state.refused.iter().take(REFUSED_SHOWN) {
                let due = refusal.not_before_run.saturating_sub(state.runs).max(1);
                let line = format!(
                    "  {id}: {} times, again in {due} runs or when it changes: {}",
                    refusal.times, refusal.said
                );
                let _ = writeln!(text, "{}", sanitize(&line, usize::MAX));
            }
            if let Some(more) = state.refused.len().checked_sub(REFUSED_SHOWN + 1) {
                let _ = writeln!(text, "  … and {} more (--json shows all)", more + 1);
            }
            let products = state.source_products.map_or_else(|| "not known".to_owned(), |n| n.to_string());
            let _ = writeln!(text, "products     {products} at the last complete run");
        }
    }
    let _ = match &stored.lease.holder {
        Some(holder) => {
            writeln!(text, "run          {} holds the lease since {}", holder.run_id, holder.since)
        }
        None => writeln!(text, "run          none"),
    };
    text
}

async fn rebuild(env: &Env, screen: Screen, args: &StateRebuildArgs) -> Result<u8, Error> {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return Ok(cannot_start("signals cannot be received", &error)),
    };
    let app = App::new(env.clone());
    let view = ProgressView::new(screen.progress());
    let extras = if args.own_extra { Extras::Own } else { Extras::Leave };
    let watch = view.watch();
    let work = app.rebuild_state(pipeline(&app, args.pipeline.as_ref()), extras, &*watch);
    let Some(rebuilt) = stoppable(&app, work, &view, &mut signals).await else {
        return Ok(EXIT_INTERRUPTED);
    };
    let found = rebuilt?;
    let extra = match (found.extra, found.extra_owned) {
        (0, _) => String::new(),
        (n, true) => format!("; {n} that only the target has were taken over, the next sync deletes them"),
        (n, false) => format!(
            "; {n} that only the target has were left alone (with --own-extra the next sync deletes them)"
        ),
    };
    print(&format!(
        "state rebuilt: {} rows are as they should be, {} differ, {} are missing{extra}\n",
        found.same, found.differing, found.missing
    ));
    Ok(EXIT_OK)
}
