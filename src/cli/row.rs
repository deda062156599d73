//! `row ID`: where a row is and why.

use std::fmt::Write as _;

use super::args::RowArgs;
use super::run::{failed_or_paused, watched};
use super::term::{Screen, Style, pad, print, sanitize};
use super::{EXIT_OK, pipeline, values};
use crate::config::Env;
use crate::sync::{ChangeAction, FieldChange, HistoryEntry, Json, RowChange, RowStory};
use crate::words::{Message, Words as _, say};

/// Characters of a row that are shown; --json has it whole.
const ROW_CHARS: usize = 300;
/// Entries of the history that are shown.
const ENTRIES: usize = 10;
/// Columns of a label; one follows it.
const LABEL_COLUMNS: usize = 12;

pub(super) async fn row(env: &Env, screen: Screen, args: &RowArgs) -> u8 {
    let story = watched(env, screen, args.json, async |app, watch| {
        app.row(pipeline(app, args.pipeline.as_ref()), &args.id, watch).await
    });
    match story.await {
        Ok(Ok(story)) if args.json => print(&(serde_json::to_string(&story).unwrap_or_default() + "\n")),
        Ok(Ok(story)) => screen.print(&as_text(&story, screen.style())),
        Ok(Err(error)) => return failed_or_paused(screen, &error),
        Err(code) => return code,
    }
    EXIT_OK
}

fn as_text(story: &RowStory, style: Style) -> String {
    let mut text =
        format!("{} {}\n", style.bold(&sanitize(&story.name, ROW_CHARS)), sanitize(&story.id, ROW_CHARS));
    let mut line = |label: Message, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {} {value}", style.dim(&pad(&style.say(&label), LABEL_COLUMNS)));
    };
    if let Some(row) = &story.item_of {
        line(say!("item of"), &sanitize(row, ROW_CHARS));
    }
    line(say!("source"), &json(story.source.as_ref(), &say!("does not have it"), style));
    line(say!("row"), &json(story.row.as_ref(), &say!("none"), style));
    let at = story.acknowledged_at.as_ref().map(|at| format!("{at}  ")).unwrap_or_default();
    let nothing = match story.acknowledged_unknown {
        true => say!("yes, with content that is not known"),
        false => say!("nothing"),
    };
    line(say!("acknowledged"), &format!("{at}{}", json(story.acknowledged.as_ref(), &nothing, style)));
    if let Some(plan) = &story.plan {
        let action = style.say(&Message::from(plan.action));
        line(say!("plan"), &format!("{action}  {}", told(ChangeAction::Update, &plan.fields, style)));
    }
    if let Some(quarantine) = &story.quarantine {
        let tries = match (quarantine.tries, quarantine.next_try) {
            (0, _) | (_, None) => say!("again when it changes at the source"),
            (times, Some(runs)) => {
                say!("refused {times} times, again in {runs} runs or when it changes", times, runs)
            }
        };
        let reason = Message::from(sanitize(&quarantine.reason, ROW_CHARS));
        line(say!("quarantine"), &style.say(&say!("{reason} ({tries})", reason, tries)));
    }
    for (place, entry) in story.history.iter().take(ENTRIES).enumerate() {
        line(if place == 0 { say!("history") } else { Message::plain("") }, &history(entry, style));
    }
    if story.history.is_empty() {
        line(say!("history"), &style.say(&say!("no run of the last 90 days has sent it")));
    }
    if let Some(more) = story.history.len().checked_sub(ENTRIES + 1) {
        let more = say!("… and {more} more (--json shows them)", more = more + 1);
        line(Message::plain(""), &style.say(&more));
    }
    text
}

fn json(row: Option<&Json>, nothing: &Message, style: Style) -> String {
    row.map_or_else(|| style.say(nothing), |row| sanitize(row.text(), ROW_CHARS))
}

fn history(entry: &HistoryEntry, style: Style) -> String {
    let HistoryEntry { run_id, at, action, fields, answer } = entry;
    let (at, action) = (sanitize(at, ROW_CHARS), style.say(&action.words()));
    let answer = style.say(&Message::from(sanitize(answer, ROW_CHARS)));
    let run = style.dim(&style.say(&say!("run {run_id}", run_id)));
    format!("{at} {action} {answer}  {}  {run}", told(entry.action, fields, style))
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
