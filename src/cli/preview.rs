//! `preview`: rows of the source beside the rows that the pipeline makes of them, and a test of a mapping.

use std::fmt::Write as _;

use serde_json::value::RawValue;

use super::args::PreviewArgs;
use super::beside::{beside, fields};
use super::expect::{self, Expected};
use super::run::watched;
use super::term::{Screen, Style, count, print, print_error, sanitize};
use super::{EXIT_OK, EXIT_PARTIAL, failed, pipeline};
use crate::app::PreviewRequest;
use crate::catalogue::Rejected;
use crate::config::Env;
use crate::error::{Error, ErrorKind};
use crate::sync::preview::Preview;
use crate::words::{Message, say};

/// Characters of a reason that are shown to people.
const REASON_CHARS: usize = 500;

/// `preview`.
pub(super) async fn preview(env: &Env, screen: Screen, args: &PreviewArgs) -> u8 {
    match shown(env, screen, args).await {
        Ok(code) => code,
        Err(error) => failed(screen, &error),
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
    let request = PreviewRequest { ids: args.ids.clone(), limit: args.limit, from };
    let preview = watched(env, screen, args.json, async |app, watch| {
        app.preview(pipeline(app, args.pipeline.as_ref()), &request, watch).await
    });
    let preview = match preview.await {
        Ok(preview) => preview?,
        Err(code) => return Ok(code),
    };
    // Named rows are shown all.
    let limit = if args.ids.is_empty() { args.limit } else { usize::MAX };
    match args.json {
        true => print(&as_json(&preview, limit)),
        false => screen.print(&as_text(&preview, limit, screen.style())),
    }
    let Some(expected) = expected else { return Ok(EXIT_OK) };
    let differences = expect::differences(&preview, &expected);
    if differences.is_empty() {
        let rows = count(preview.rows.len() as u64);
        print_error(&screen.say(&say!("as expected: {rows} rows", rows)));
        return Ok(EXIT_OK);
    }
    differences.iter().for_each(|line| print_error(&sanitize_indented(&screen.say(line))));
    Ok(EXIT_PARTIAL)
}

/// Text from outside, with the indentation that shows what belongs to which row.
fn sanitize_indented(line: &str) -> String {
    let indent = line.len() - line.trim_start_matches(' ').len();
    format!("{}{}", " ".repeat(indent), sanitize(line, usize::MAX))
}

fn read(file: &str) -> Result<String, Error> {
    let bad = |why: Message| Error::new(ErrorKind::BadEvent, say!("{file}: {why}", file, why));
    let bytes = std::fs::read(file).map_err(|error| bad(error.to_string().into()))?;
    String::from_utf8(bytes).map_err(|_| bad(say!("is not UTF-8 text")).help(say!("save it as UTF-8")))
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
    let [source, row_label, rejected_label] =
        [say!("source"), say!("row"), say!("rejected")].map(|label| style.say(&label));
    let shown = |json: &str, label: &str| {
        let mut lines = vec![style.bold(label)];
        lines.extend(fields(json, style));
        lines
    };
    // Writing to a string cannot fail.
    for row in preview.rows.iter().take(limit) {
        let (source, row) = (shown(row.source.get(), &source), shown(row.row.get(), &row_label));
        let _ = writeln!(text, "{}", beside(&source, &row));
    }
    for Rejected { raw, reason, .. } in preview.rejected.iter().take(limit) {
        let why = style.say(&Message::from(sanitize(reason, REASON_CHARS)));
        let rejected = [style.bold(&rejected_label), why];
        let _ = writeln!(text, "{}", beside(&shown(raw.get(), &source), &rejected));
    }
    let more = |all: usize| count(all.saturating_sub(limit) as u64);
    let (rows, rejected) = (preview.rows.len(), preview.rejected.len());
    if rows > limit || rejected > limit {
        let more = say!(
            "{rows} more rows, {rejected} more that cannot go through; --limit shows more",
            rows = more(rows),
            rejected = more(rejected),
        );
        let _ = writeln!(text, "{}", style.dim(&style.say(&more)));
    }
    if rows + rejected == 0 {
        let _ = writeln!(text, "{}", style.say(&say!("the source holds no row")));
    }
    if let Some(note) = preview.note {
        let _ = writeln!(text, "{}", style.dim(&style.say(&Message::from(note))));
    }
    text
}
