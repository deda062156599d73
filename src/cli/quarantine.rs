//! `quarantine`: the rows that cannot go through, and two things that can be done about them.

use std::fmt::Write as _;

use serde_json::value::RawValue;

use super::args::{QuarantineArgs, QuarantineCommand};
use super::term::{Screen, Style, count, print, print_error, sanitize};
use super::{EXIT_FAILURE, EXIT_OK, EXIT_USAGE, pipeline};
use crate::app::App;
use crate::config::Env;
use crate::error::Error;
use crate::sync::quarantine::{Quarantined, find};

/// Characters of a reason that are shown in a list, and of a row where it is shown alone.
const REASON_CHARS: usize = 160;
const ROW_CHARS: usize = 4_000;

/// `quarantine`.
pub(super) async fn dispatch(env: &Env, screen: Screen, command: &QuarantineCommand) -> u8 {
    match done(env, screen, command).await {
        Ok(text) => {
            print(&text);
            EXIT_OK
        }
        Err(error) => {
            print_error(&format!("error: {}", sanitize(&error.line(), usize::MAX)));
            if error.kind.exit_code() == EXIT_USAGE { EXIT_USAGE } else { EXIT_FAILURE }
        }
    }
}

async fn done(env: &Env, screen: Screen, command: &QuarantineCommand) -> Result<String, Error> {
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
    Ok(if args.json { as_json(&rows) } else { text(&rows, screen.style()) })
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
        return "no row is in the quarantine\n".to_owned();
    }
    let mut text = String::new();
    // Writing to a string cannot fail.
    for row in rows {
        let mark = if row.row.dismissed { " (dismissed)" } else { "" };
        let _ = writeln!(
            text,
            "{}{mark} · {} · {} · {}",
            style.bold(&sanitize(&row.handle(), REASON_CHARS)),
            row.row.reason_kind,
            times(row),
            sanitize(&row.row.reason, REASON_CHARS),
        );
    }
    let silent = rows.iter().filter(|row| row.row.dismissed).count();
    let _ = writeln!(text, "{} rows, {} of them dismissed", count(rows.len() as u64), count(silent as u64));
    text
}

/// Since when, how often, and when again.
fn times(row: &Quarantined) -> String {
    let since = row.since.as_deref().unwrap_or("an earlier run");
    let next =
        if row.next_try == 1 { "in the next run".to_owned() } else { format!("in {} runs", row.next_try) };
    format!("since {since} · {} tries, again {next}", row.tries)
}

fn details(rows: &[Quarantined], style: Style) -> String {
    let mut text = String::new();
    for row in rows {
        let field = |text: &mut String, label: &str, value: &str| {
            let _ = writeln!(text, "{} {value}", style.dim(&format!("{label:<9}")));
        };
        let id = sanitize(&row.handle(), REASON_CHARS);
        field(&mut text, "row", &format!("{id}, a {} of the {}", row.row.kind, side(row)));
        field(&mut text, "kind", row.row.reason_kind.as_str());
        field(&mut text, "reason", &sanitize(&row.row.reason, ROW_CHARS));
        field(&mut text, "tries", &times(row));
        field(
            &mut text,
            "dismissed",
            if row.row.dismissed { "yes, until its content changes" } else { "no" },
        );
        field(&mut text, "raw", &sanitize(row.row.raw.get(), ROW_CHARS));
        text.push('\n');
    }
    text
}

fn side(row: &Quarantined) -> &'static str {
    match row.row.kind {
        crate::catalogue::RowKind::Record => "target",
        _ => "source",
    }
}

fn retried(rows: &[Quarantined], _: Style) -> String {
    let line = |row: &Quarantined| {
        let id = sanitize(&row.handle(), REASON_CHARS);
        match row.row.kind {
            crate::catalogue::RowKind::Record => format!("{id}: the next run sends it\n"),
            _ => format!(
                "{id}: every run judges it anew; correct it at the source: {}\n",
                sanitize(&row.row.reason, REASON_CHARS)
            ),
        }
    };
    rows.iter().map(line).collect()
}

fn dismissed(rows: &[Quarantined], _: Style) -> String {
    let line = |row: &Quarantined| {
        format!(
            "{}: dismissed until its content changes; retry lets it count again\n",
            sanitize(&row.handle(), REASON_CHARS)
        )
    };
    rows.iter().map(line).collect()
}
