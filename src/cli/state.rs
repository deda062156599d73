//! `state show` and `state rebuild`: what the target has acknowledged, for people, and the way back when it is lost.

use std::fmt::Write as _;

use serde_json::json;

use super::args::{StateCommand, StateRebuildArgs, StateShowArgs};
use super::progress::{How, Shown};
use super::{BAD_USAGE, DONE, FAILED, Screen, complain, pipeline_file, print, show};
use crate::app::{App, StoredState};
use crate::config::Env;
use crate::error::Error;
use crate::state::{Acknowledged, State};
use crate::sync::Extras;

/// Refused rows shown; the rest is counted.
const REFUSED_SHOWN: usize = 20;

pub(super) async fn dispatch(env: &Env, screen: Screen, command: &StateCommand) -> u8 {
    let done = match command {
        StateCommand::Show(args) => show_state(env, args).await,
        StateCommand::Rebuild(args) => rebuild(env, screen, args).await,
    };
    match done {
        Ok(()) => DONE,
        Err(error) => {
            complain(&format!("error: {}", show::clean(&error.line(), usize::MAX)));
            if error.kind.exit_code() == BAD_USAGE { BAD_USAGE } else { FAILED }
        }
    }
}

async fn show_state(env: &Env, args: &StateShowArgs) -> Result<(), Error> {
    let pipeline = pipeline_file(args.pipeline.clone().or_else(|| env.get("OKKI_SYNC_PIPELINE")));
    let stored = App::new(env.clone()).stored_state(pipeline).await?;
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
    // Writing into a string cannot fail.
    match &stored.state {
        None => text.push_str("             nothing yet: the next sync writes every row\n"),
        Some((state, target)) => {
            let _ = writeln!(text, "target       {}", show::clean(target, usize::MAX));
            let _ = writeln!(text, "acknowledged {} rows", state.rows.len() - announced(state));
            let _ = writeln!(text, "announced    {} rows (sent perhaps, not acknowledged)", announced(state));
            let _ = writeln!(text, "refused      {} rows", state.refused.len());
            for (id, refusal) in state.refused.iter().take(REFUSED_SHOWN) {
                let due = refusal.not_before_run.saturating_sub(state.runs).max(1);
                let line = format!(
                    "  {id}: {} times, again in {due} runs or when it changes: {}",
                    refusal.times, refusal.said
                );
                let _ = writeln!(text, "{}", show::clean(&line, usize::MAX));
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

async fn rebuild(env: &Env, screen: Screen, args: &StateRebuildArgs) -> Result<(), Error> {
    let pipeline = pipeline_file(args.pipeline.clone().or_else(|| env.get("OKKI_SYNC_PIPELINE")));
    let shown = Shown::new(if screen.err { screen.progress(false) } else { How::Lines });
    let extras = if args.own_extra { Extras::Own } else { Extras::Leave };
    let rebuilt = App::new(env.clone()).rebuild_state(pipeline, extras, &*shown.watch()).await;
    shown.end();
    let found = rebuilt?;
    let extra = match (found.extra, found.extra_owned) {
        (0, _) => String::new(),
        (n, true) => format!("; {n} that only the target has count as ours, the next sync deletes them"),
        (n, false) => format!(
            "; {n} that only the target has were left alone (--own-extra counts them as ours, and the next sync deletes them)"
        ),
    };
    print(&format!(
        "state made anew: {} rows are there as they should be, {} differ, {} are missing{extra}\n",
        found.same, found.differing, found.missing
    ));
    Ok(())
}
