//! `quarantine`: the rows that cannot go through, and two things that can be done about them.

use std::fmt::Write as _;

use serde_json::value::RawValue;

use super::args::{QuarantineArgs, QuarantineCommand};
use super::term::{Screen, Style, count, pad, print, sanitize};
use super::{EXIT_OK, failed, pipeline};
use crate::app::App;
use crate::config::Env;
use crate::error::{Error, Side};
use crate::sync::quarantine::{Quarantined, find};
use crate::words::{Message, Words as _, say};

/// Characters of a reason that are shown in a list, and of a row where it is shown alone.
const REASON_CHARS: usize = 160;
const ROW_CHARS: usize = 4_000;
/// Columns of a label; one follows it.
const LABEL_COLUMNS: usize = 9;

/// `quarantine`.
pub(super) async fn dispatch(env: &Env, screen: Screen, command: &QuarantineCommand) -> u8 {
    match done(env, screen, command).await {
        Ok(()) => EXIT_OK,
        Err(error) => failed(screen, &error),
    }
}

async fn done(env: &Env, screen: Screen, command: &QuarantineCommand) -> Result<(), Error> {
    let app = App::new(env.clone());
    let from = |args: &QuarantineArgs| pipeline(&app, args.pipeline.as_ref());
    let (rows, args, text): (_, _, fn(&[Quarantined], Style) -> String) = match command {
        QuarantineCommand::List(args) => (app.quarantine(from(args)).await?, args, list),
        QuarantineCommand::Show { id, args } => {
            let all = app.quarantine(from(args)).await?;
            (find(&all, std::slice::from_ref(id))?, args, details)
        }
        QuarantineCommand::Retry { ids, args } => {
            (app.retry_quarantined(from(args), ids).await?, args, retried)
        }
        QuarantineCommand::Dismiss { ids, args } => {
            (app.dismiss_quarantined(from(args), ids).await?, args, dismissed)
        }
    };
    match args.json {
        true => print(&as_json(&rows)),
        false => screen.print(&text(&rows, screen.style())),
    }
    Ok(())
}

fn as_json(rows: &[Quarantined]) -> String {
    #[derive(serde::Serialize)]
    struct Row<'a> {
        id: Option<&'a str>,
        kind: &'static str,
        reason: &'a str,
        raw: &'a RawValue,
        since: Option<&'a str>,
        tries: u64,
        next_try: u64,
        dismissed: bool,
        /// What `show`, `retry` and `dismiss` call a row without an id.
        #[serde(skip_serializing_if = "Option::is_none")]
        handle: Option<String>,
    }
    let rows: Vec<Row<'_>> = rows
        .iter()
        .map(|row| Row {
            id: row.row.id.as_deref(),
            kind: row.row.reason_kind.as_str(),
            reason: &row.row.reason,
            raw: &row.row.raw,
            since: row.since.as_deref(),
            tries: row.tries,
            next_try: row.next_try,
            dismissed: row.row.dismissed,
            handle: row.row.id.is_none().then(|| row.handle()),
        })
        .collect();
    // Raw JSON, texts and numbers always have a JSON form.
    serde_json::to_string(&rows).map(|text| text + "\n").unwrap_or_default()
}

fn list(rows: &[Quarantined], style: Style) -> String {
    if rows.is_empty() {
        return style.say(&say!("no row is in the quarantine")) + "\n";
    }
    let mut text = String::new();
    // Writing to a string cannot fail.
    for row in rows {
        let mark = if row.row.dismissed { style.say(&say!(" (dismissed)")) } else { String::new() };
        let _ = writeln!(
            text,
            "{}{mark} · {} · {} · {}",
            style.bold(&handle(row)),
            style.say(&row.row.reason_kind.words()),
            style.say(&times(row)),
            style.say(&reason(row, REASON_CHARS)),
        );
    }
    let silent = rows.iter().filter(|row| row.row.dismissed).count();
    let [rows, silent] = [rows.len(), silent].map(|n| count(n as u64));
    let _ = writeln!(text, "{}", style.say(&say!("{rows} rows, {silent} of them dismissed", rows, silent)));
    text
}

fn handle(row: &Quarantined) -> String {
    sanitize(&row.handle(), REASON_CHARS)
}

fn reason(row: &Quarantined, chars: usize) -> Message {
    sanitize(&row.row.reason, chars).into()
}

/// Since when, how often, and when again.
fn times(row: &Quarantined) -> Message {
    let since = row.since.as_deref().map_or_else(|| say!("an earlier run"), Message::from);
    let next = match row.next_try {
        1 => say!("in the next run"),
        runs => say!("in {runs} runs", runs),
    };
    say!("since {since} · {tries} tries, again {next}", since, tries = row.tries, next)
}

fn details(rows: &[Quarantined], style: Style) -> String {
    let mut text = String::new();
    for row in rows {
        let dismissed = if row.row.dismissed { say!("yes, until its content changes") } else { say!("no") };
        let who =
            say!("{id}, a {kind} of the {side}", id = handle(row), kind = row.row.kind, side = side(row));
        let fields = [
            (say!("row"), style.say(&who)),
            (say!("kind"), style.say(&row.row.reason_kind.words())),
            (say!("reason"), style.say(&reason(row, ROW_CHARS))),
            (say!("tries"), style.say(&times(row))),
            (say!("dismissed"), style.say(&dismissed)),
            (say!("raw"), sanitize(row.row.raw.get(), ROW_CHARS)),
        ];
        for (label, value) in fields {
            let _ = writeln!(text, "{} {value}", style.dim(&pad(&style.say(&label), LABEL_COLUMNS)));
        }
        text.push('\n');
    }
    text
}

fn side(row: &Quarantined) -> Side {
    match row.row.kind {
        crate::catalogue::RowKind::Record => Side::Target,
        _ => Side::Source,
    }
}

fn retried(rows: &[Quarantined], style: Style) -> String {
    let line = |row: &Quarantined| {
        let id = handle(row);
        let line = match row.row.kind {
            crate::catalogue::RowKind::Record => say!("{id}: the next run sends it", id),
            _ => say!(
                "{id}: every run judges it anew; correct it at the source: {reason}",
                id,
                reason = reason(row, REASON_CHARS),
            ),
        };
        style.say(&line) + "\n"
    };
    rows.iter().map(line).collect()
}

fn dismissed(rows: &[Quarantined], style: Style) -> String {
    let line = |row: &Quarantined| {
        let id = handle(row);
        style.say(&say!("{id}: dismissed until its content changes; retry lets it count again", id)) + "\n"
    };
    rows.iter().map(line).collect()
}
