//! `undo RUN`: shows what would go back, and sends it with `--yes`.

use serde_json::json;

use super::args::UndoArgs;
use super::run::{exit_code, failed_or_paused, print_failure, watched};
use super::term::{Screen, Style, count, print, sanitize};
use super::{EXIT_OK, pipeline, summary, values};
use crate::config::Env;
use crate::sync::{LeftOut, UndoRequest, Undone};
use crate::words::{Message, say};

/// Rows that are left out and named; the rest is counted.
const LEFT_OUT_SHOWN: usize = 20;
/// Characters of a name or an id that are shown.
const TEXT_CHARS: usize = 80;
const NOT_FOR_LONG: Message = say!(
    "the source is the truth: the next sync brings its values again. Change them in OKKI to make this last"
);

pub(super) async fn undo(env: &Env, screen: Screen, args: &UndoArgs) -> u8 {
    let request = UndoRequest { run_id: args.run.clone(), send: args.yes, deletes: args.deletes };
    let undone = watched(env, screen, args.json, async |app, watch| {
        app.undo(pipeline(app, args.pipeline.as_ref()), &request, watch).await
    });
    let undone = match undone.await {
        Ok(Ok(undone)) => undone,
        Ok(Err(error)) => return failed_or_paused(screen, &error),
        Err(code) => return code,
    };
    if args.json {
        print(&as_json(&args.run, &undone));
    } else {
        screen.print(&as_text(&undone, screen.style()));
    }
    let Some(outcome) = &undone.outcome else { return EXIT_OK };
    if args.json || !(screen.out && screen.err) {
        print_failure(outcome, screen);
    }
    exit_code(outcome)
}

fn as_json(run: &str, undone: &Undone) -> String {
    let report = undone.outcome.as_ref().map(|outcome| &outcome.report);
    let Undone { changes, left_out, .. } = undone;
    format!("{}\n", json!({"run_id": run, "changes": changes, "left_out": left_out, "report": report}))
}

fn as_text(undone: &Undone, style: Style) -> String {
    let mut text = values::rows(&undone.changes, 0, style);
    let Undone { left_out, outcome, changes } = undone;
    for LeftOut { id, name, why } in left_out.iter().take(LEFT_OUT_SHOWN) {
        let (name, id) = (sanitize(name, TEXT_CHARS), sanitize(id, TEXT_CHARS));
        let gap = if name.is_empty() { "" } else { " " };
        let why = style.say(&say!("({why})", why = Message::from(*why)));
        text.push_str(&format!("! {name}{gap}{}  {}\n", style.dim(&id), style.dim(&why)));
    }
    if let Some(more) = left_out.len().checked_sub(LEFT_OUT_SHOWN + 1) {
        let more = say!("… and {more} more are left out", more = count(more as u64 + 1));
        text.push_str(&format!("{}\n", style.dim(&style.say(&more))));
    }
    let rows = count(changes.len() as u64);
    if let Some(outcome) = outcome {
        text.push_str(&format!("\n{}", summary::summary(outcome, style)));
    }
    let end = match outcome {
        Some(_) => NOT_FOR_LONG,
        None if changes.is_empty() => say!("nothing can go back"),
        None => say!("{rows} rows would go back; --yes sends them. But {why}", rows, why = NOT_FOR_LONG),
    };
    text + &style.say(&end) + "\n"
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::sync::{ChangeAction, FieldChange, Json, RowChange};

    #[test]
    fn an_undo_is_shown_before_it_is_done() {
        let cost = FieldChange {
            path: "cost".to_owned(),
            old: Json::parse("2"),
            new: Json::parse("1"),
            old_unknown: false,
        };
        let change = RowChange {
            id: "7".to_owned(),
            name: "灯".to_owned(),
            action: ChangeAction::Update,
            fields: vec![cost],
        };
        let left = LeftOut { id: "8".to_owned(), name: String::new(), why: "it has changed again since" };
        let undone = Undone { changes: vec![change], left_out: vec![left], outcome: None };
        insta::assert_snapshot!(as_text(&undone, Style::PLAIN), @r"
        * 灯 7  cost 2 → 1
        ! 8  (it has changed again since)
        1 rows would go back; --yes sends them. But the source is the truth: the next sync brings its values again. Change them in OKKI to make this last
        ");
        let json: serde_json::Value = serde_json::from_str(&as_json("r1", &undone)).unwrap();
        assert_eq!((&json["report"], &json["left_out"][0]["id"]), (&serde_json::Value::Null, &"8".into()));
    }
}
