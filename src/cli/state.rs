//! `state show` prints what the target has acknowledged; `state rebuild` restores that record when it is lost.

use serde_json::json;

use super::args::{StateCommand, StateRebuildArgs, StateShowArgs};
use super::run::watched;
use super::term::{Screen, pad, print, print_error, sanitize};
use super::{EXIT_OK, EXIT_PARTIAL, failed, pipeline};
use crate::app::{App, StoredState};
use crate::catalogue::RecordId;
use crate::config::Env;
use crate::error::{Error, ErrorKind};
use crate::state::{Acknowledged, Refusal, State};
use crate::sync::Extras;
use crate::words::{Lang, Message, say};

/// Refused rows shown; the rest is counted.
const REFUSED_SHOWN: usize = 20;

pub(super) async fn dispatch(env: &Env, screen: Screen, command: &StateCommand) -> u8 {
    let done = match command {
        StateCommand::Show(args) => show_state(env, screen, args).await.map(|()| EXIT_OK),
        StateCommand::Rebuild(args) => rebuild(env, screen, args).await,
    };
    match done {
        Ok(code) => code,
        Err(error) if matches!(error.kind, ErrorKind::Interrupted | ErrorKind::Throttled(_)) => {
            let line = sanitize(&error.line_in(screen.lang), usize::MAX);
            print_error(&screen.say(&say!("paused: {line}", line)));
            let then =
                say!("the state is as it was; state rebuild goes on from here when it is called again");
            print_error(&screen.say(&then));
            EXIT_PARTIAL
        }
        Err(error) => failed(screen, &error),
    }
}

async fn show_state(env: &Env, screen: Screen, args: &StateShowArgs) -> Result<(), Error> {
    let app = App::new(env.clone());
    let stored = app.stored_state(pipeline(&app, args.pipeline.as_ref())).await?;
    match args.json {
        true => print(&as_json(&stored)),
        false => screen.print(&as_text(&stored, screen.lang)),
    }
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

/// Columns of a label; one follows it.
const LABEL_COLUMNS: usize = 12;

fn as_text(stored: &StoredState, lang: Lang) -> String {
    let say = |message: Message| message.in_language(lang);
    let mut lines =
        vec![field(&say(say!("connection")), &stored.connection), field(&say(say!("state")), &stored.at)];
    match &stored.state {
        None => lines.push(field("", &say(say!("nothing yet: the next sync writes every row")))),
        Some((state, target)) => {
            let announced = announced(state);
            let acknowledged = say!("{rows} rows", rows = state.rows.len() - announced);
            let sent = say!("{rows} rows (sent perhaps, not acknowledged)", rows = announced);
            let refused_rows = say!("{rows} rows", rows = state.refused.len());
            let products = state.source_products.map_or_else(|| say!("not known"), |n| n.to_string().into());
            let products = say!("{products} at the last complete run", products);
            lines.push(field(&say(say!("target")), &sanitize(target, usize::MAX)));
            lines.push(field(&say(say!("acknowledged")), &say(acknowledged)));
            lines.push(field(&say(say!("announced")), &say(sent)));
            lines.push(field(&say(say!("refused")), &say(refused_rows)));
            lines.extend(refused(state, lang));
            lines.push(field(&say(say!("products")), &say(products)));
        }
    }
    let run = match &stored.lease.holder {
        Some(holder) => {
            say!("{run} holds the lease since {since}", run = holder.run_id, since = holder.since)
        }
        None => say!("none"),
    };
    lines.push(field(&say(say!("run")), &say(run)));
    lines.concat()
}

fn field(label: &str, value: &str) -> String {
    format!("{} {value}\n", pad(label, LABEL_COLUMNS))
}

fn refused(state: &State, lang: Lang) -> Vec<String> {
    let line = |(id, refusal): (&RecordId, &Refusal)| {
        let line = say!(
            "  {id}: {times} times, again in {runs} runs or when it changes: {said}",
            id = id.as_str(),
            times = refusal.times,
            runs = refusal.not_before_run.saturating_sub(state.runs).max(1),
            said = Message::from(refusal.said.as_str()),
        );
        sanitize(&line.in_language(lang), usize::MAX) + "\n"
    };
    let mut lines: Vec<String> = state.refused.iter().take(REFUSED_SHOWN).map(line).collect();
    if let Some(more) = state.refused.len().checked_sub(REFUSED_SHOWN + 1) {
        lines.push(say!("  … and {more} more (--json shows all)", more = more + 1).in_language(lang) + "\n");
    }
    lines
}

async fn rebuild(env: &Env, screen: Screen, args: &StateRebuildArgs) -> Result<u8, Error> {
    let extras = if args.own_extra { Extras::Own } else { Extras::Leave };
    let rebuilt = watched(env, screen, false, async |app, watch| {
        app.rebuild_state(pipeline(app, args.pipeline.as_ref()), extras, watch).await
    });
    let found = match rebuilt.await {
        Ok(found) => found?,
        Err(code) => return Ok(code),
    };
    let extra = match (found.extra, found.extra_owned) {
        (0, _) => Message::plain(""),
        (n, true) => say!("; {n} that only the target has were taken over, the next sync deletes them", n),
        (n, false) => say!(
            "; {n} that only the target has were left alone (with --own-extra the next sync deletes them)",
            n,
        ),
    };
    let line = say!(
        "state rebuilt: {same} rows are as they should be, {differing} differ, {missing} are missing{extra}",
        same = found.same,
        differing = found.differing,
        missing = found.missing,
        extra,
    );
    print(&(screen.say(&line) + "\n"));
    Ok(EXIT_OK)
}
