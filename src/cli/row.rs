//! `row ID`: where a row is and why.

use std::fmt::Write as _;

use super::args::RowArgs;
use super::run::stoppable;
use super::term::{Screen, Signals, Style, print, print_error, sanitize};
use super::{EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_OK, EXIT_PARTIAL, cannot_start, pipeline, values};
use crate::app::App;
use crate::config::Env;
use crate::error::{Error, ErrorKind};
use crate::sync::{ChangeAction, FieldChange, HistoryEntry, Json, RowChange, RowStory};
use crate::words::say;

/// Characters of a row that are shown; --json has it whole.
const ROW_CHARS: usize = 300;
/// Entries of the history that are shown.
const ENTRIES: usize = 10;

pub(super) async fn row(env: &Env, screen: Screen, args: &RowArgs) -> u8 {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return cannot_start(screen, say!("signals cannot be received"), &error),
    };
    let app = App::new(env.clone());
    let view = if args.json { screen.view_with_json() } else { screen.view() };
    let watch = view.watch();
    let from = pipeline(&app, args.pipeline.as_ref());
    let Some(story) = stoppable(&app, app.row(from, &args.id, &*watch), &view, &mut signals).await else {
        return EXIT_INTERRUPTED;
    };
    match story {
        Ok(story) if args.json => print(&(serde_json::to_string(&story).unwrap_or_default() + "\n")),
        Ok(story) => print(&as_text(&story, screen.style())),
        Err(error) => return failed(&error),
    }
    EXIT_OK
}

/// Says what went wrong, and with which code the command ends.
pub(super) fn failed(error: &Error) -> u8 {
    print_error(&format!("error: {}", sanitize(&error.line(), usize::MAX)));
    match error.kind {
        ErrorKind::Interrupted | ErrorKind::Throttled(_) => EXIT_PARTIAL,
        kind => kind.exit_code().max(EXIT_FAILURE),
    }
}

fn as_text(story: &RowStory, style: Style) -> String {
    let mut text =
        format!("{} {}\n", style.bold(&sanitize(&story.name, ROW_CHARS)), sanitize(&story.id, ROW_CHARS));
    let mut line = |label: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {} {value}", style.dim(&format!("{label:<12}")));
    };
    if let Some(row) = &story.item_of {
        line("item of", &sanitize(row, ROW_CHARS));
    }
    line("source", &json(story.source.as_ref(), "does not have it"));
    line("row", &json(story.row.as_ref(), "none"));
    let at = story.acknowledged_at.as_ref().map(|at| format!("{at}  ")).unwrap_or_default();
    let nothing = if story.acknowledged_unknown { "yes, with content that is not known" } else { "nothing" };
    line("acknowledged", &format!("{at}{}", json(story.acknowledged.as_ref(), nothing)));
    if let Some(plan) = &story.plan {
        line("plan", &format!("{}  {}", plan.action, told(ChangeAction::Update, &plan.fields, style)));
    }
    if let Some(quarantine) = &story.quarantine {
        let tries = match (quarantine.tries, quarantine.next_try) {
            (0, _) | (_, None) => "again when it changes at the source".to_owned(),
            (tries, Some(runs)) => format!("refused {tries} times, again in {runs} runs or when it changes"),
        };
        line("quarantine", &format!("{} ({tries})", sanitize(&quarantine.reason, ROW_CHARS)));
    }
    for (place, entry) in story.history.iter().take(ENTRIES).enumerate() {
        line(if place == 0 { "history" } else { "" }, &history(entry, style));
    }
    if story.history.is_empty() {
        line("history", "no run of the last 90 days has sent it");
    }
    if let Some(more) = story.history.len().checked_sub(ENTRIES + 1) {
        line("", &format!("… and {} more (--json shows them)", more + 1));
    }
    text
}

fn json(row: Option<&Json>, nothing: &str) -> String {
    row.map_or_else(|| nothing.to_owned(), |row| sanitize(row.text(), ROW_CHARS))
}

fn history(entry: &HistoryEntry, style: Style) -> String {
    let HistoryEntry { run_id, at, action, fields, answer } = entry;
    let (at, answer) = (sanitize(at, ROW_CHARS), sanitize(answer, ROW_CHARS));
    format!(
        "{at} {action} {answer}  {}  {}",
        told(*action, fields, style),
        style.dim(&format!("run {run_id}"))
    )
}

fn told(action: ChangeAction, fields: &[FieldChange], style: Style) -> String {
    let change = RowChange { id: String::new(), name: String::new(), action, fields: fields.to_vec() };
    values::fields(&change, style)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::sync::{RowPlan, RowQuarantine};

    #[test]
    fn a_row_s_story_reads_from_the_source_to_its_history() {
        let json = |text: &str| Json::parse(text);
        let cost = |old, new| FieldChange {
            path: "cost".to_owned(),
            old: json(old),
            new: json(new),
            old_unknown: false,
        };
        let story = RowStory {
            id: "7".to_owned(),
            name: "投光灯".to_owned(),
            item_of: None,
            source: json(r#"{"product_id":"7","cost":3099.00}"#),
            row: json(r#"{"id":"7","cost":3099.00}"#),
            acknowledged: json(r#"{"id":"7","cost":2999.00}"#),
            acknowledged_unknown: false,
            acknowledged_at: Some("2026-11-24T18:43:16.080Z".to_owned()),
            plan: Some(RowPlan { action: "update", fields: vec![cost("2999.00", "3099.00")] }),
            quarantine: Some(RowQuarantine {
                kind: "record".to_owned(),
                reason: "refused by the target".to_owned(),
                raw: json("{}").unwrap(),
                tries: 2,
                next_try: Some(2),
            }),
            history: vec![HistoryEntry {
                run_id: "r1".to_owned(),
                at: "2026-11-24T18:43:16.080Z".to_owned(),
                action: ChangeAction::Update,
                fields: vec![cost("1", "2999.00")],
                answer: "accepted".to_owned(),
            }],
        };
        insta::assert_snapshot!(as_text(&story, Style::PLAIN), @r#"
        投光灯 7
          source       {"product_id":"7","cost":3099.00}
          row          {"id":"7","cost":3099.00}
          acknowledged 2026-11-24T18:43:16.080Z  {"id":"7","cost":2999.00}
          plan         update  cost 2,999.00 → 3,099.00
          quarantine   refused by the target (refused 2 times, again in 2 runs or when it changes)
          history      2026-11-24T18:43:16.080Z update accepted  cost 1 → 2,999.00  run r1
        "#);
    }
}
