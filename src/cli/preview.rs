//! `preview`: rows of the source beside the rows that the pipeline makes of them, and a test of a mapping.

use std::fmt::Write as _;

use serde_json::value::RawValue;

use super::args::PreviewArgs;
use super::expect::{self, Expected};
use super::run::stoppable;
use super::term::{Screen, Signals, Style, count, print, print_error, sanitize};
use super::{EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_OK, EXIT_PARTIAL, EXIT_USAGE, cannot_start, pipeline};
use crate::app::{App, PreviewRequest};
use crate::catalogue::Rejected;
use crate::config::Env;
use crate::error::{Error, ErrorKind};
use crate::sync::preview::Preview;
use crate::words::say;

/// Characters of a row that are shown to people.
const ROW_CHARS: usize = 2_000;

/// `preview`.
pub(super) async fn preview(env: &Env, screen: Screen, args: &PreviewArgs) -> u8 {
    match shown(env, screen, args).await {
        Ok(code) => code,
        Err(error) => {
            print_error(&format!("error: {}", sanitize(&error.line(), usize::MAX)));
            if error.kind.exit_code() == EXIT_USAGE { EXIT_USAGE } else { EXIT_FAILURE }
        }
    }
}

async fn shown(env: &Env, screen: Screen, args: &PreviewArgs) -> Result<u8, Error> {
    let expected = match &args.expect {
        Some(file) => {
            let read = read(file).and_then(|text| {
                Expected::parse(&text, file).map_err(|why| Error::new(ErrorKind::BadEvent, why))
            });
            Some(read?)
        }
        None => None,
    };
    let from = match &args.from {
        Some(file) => Some((read(file)?, file.clone())),
        None => None,
    };
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return Ok(cannot_start(screen, say!("signals cannot be received"), &error)),
    };
    let app = App::new(env.clone());
    let request = PreviewRequest { ids: args.ids.clone(), limit: args.limit, from };
    let view = if args.json { screen.view_with_json() } else { screen.view() };
    let watch = view.watch();
    let work = app.preview(pipeline(&app, args.pipeline.as_ref()), &request, &*watch);
    let Some(preview) = stoppable(&app, work, &view, &mut signals).await else {
        return Ok(EXIT_INTERRUPTED);
    };
    let preview = preview?;
    // Named rows are shown all.
    let limit = if args.ids.is_empty() { args.limit } else { usize::MAX };
    print(&if args.json { as_json(&preview, limit) } else { as_text(&preview, limit, screen.style()) });
    let Some(expected) = expected else { return Ok(EXIT_OK) };
    let differences = expect::differences(&preview, &expected);
    if differences.is_empty() {
        print_error(&format!("as expected: {} rows", count(preview.rows.len() as u64)));
        return Ok(EXIT_OK);
    }
    differences.iter().for_each(|line| print_error(&sanitize_indented(line)));
    Ok(EXIT_PARTIAL)
}

/// Text from outside, with the indentation that shows what belongs to which row.
fn sanitize_indented(line: &str) -> String {
    let indent = line.len() - line.trim_start_matches(' ').len();
    format!("{}{}", " ".repeat(indent), sanitize(line, usize::MAX))
}

fn read(file: &str) -> Result<String, Error> {
    let bad = |why: String| Error::new(ErrorKind::BadEvent, format!("{file}: {why}"));
    let bytes = std::fs::read(file).map_err(|error| bad(error.to_string()))?;
    String::from_utf8(bytes).map_err(|_| bad("is not UTF-8 text".to_owned()).help("save it as UTF-8"))
}

fn as_json(preview: &Preview, limit: usize) -> String {
    #[derive(serde::Serialize)]
    #[serde(untagged)]
    enum Entry<'a> {
        Row { source: &'a RawValue, row: &'a RawValue },
        Rejected { source: &'a RawValue, rejected: &'a str },
    }
    let rows = preview.rows.iter().take(limit).map(|row| Entry::Row { source: &row.source, row: &row.row });
    let rejected = preview.rejected.iter().take(limit);
    let rejected = rejected.map(|row| Entry::Rejected { source: &row.raw, rejected: &row.reason });
    let entries: Vec<Entry<'_>> = rows.chain(rejected).collect();
    // Raw JSON and texts always have a JSON form.
    serde_json::to_string(&entries).map(|text| text + "\n").unwrap_or_default()
}

fn as_text(preview: &Preview, limit: usize, style: Style) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    for row in preview.rows.iter().take(limit) {
        let _ = writeln!(text, "{} {}", style.dim("source  "), sanitize(row.source.get(), ROW_CHARS));
        let _ = writeln!(text, "{} {}\n", style.bold("row     "), sanitize(row.row.get(), ROW_CHARS));
    }
    for Rejected { raw, reason, .. } in preview.rejected.iter().take(limit) {
        let _ = writeln!(text, "{} {}", style.dim("source  "), sanitize(raw.get(), ROW_CHARS));
        let _ = writeln!(text, "{} {}\n", style.bold("rejected"), sanitize(reason, ROW_CHARS));
    }
    let more = |all: usize| count(all.saturating_sub(limit) as u64);
    let (rows, rejected) = (preview.rows.len(), preview.rejected.len());
    if rows > limit || rejected > limit {
        let more = format!(
            "{} more rows, {} more that cannot go through; --limit shows more",
            more(rows),
            more(rejected)
        );
        let _ = writeln!(text, "{}", style.dim(&more));
    }
    if rows + rejected == 0 {
        text.push_str("the source holds no row\n");
    }
    if let Some(note) = preview.note {
        let _ = writeln!(text, "{}", style.dim(note));
    }
    text
}
