//! `check` and `schema`: what is wrong with a setup, and what a pipeline file may say.

use serde_json::{Value, json};

use super::args::CheckArgs;
use super::term::{Screen, print, print_error, sanitize};
use super::{EXIT_FAILURE, EXIT_OK, EXIT_USAGE, pipeline};
use crate::app::{App, Checked, Judge, PipelineSource};
use crate::config::{self, Env, credentials};
use crate::words::{Words as _, say};

/// `check`.
pub(super) async fn check(env: &Env, screen: Screen, args: CheckArgs) -> u8 {
    let app = App::new(env.clone());
    let from = pipeline(&app, args.pipeline.as_ref());
    let (PipelineSource::File(file)
    | PipelineSource::Connection(file)
    | PipelineSource::Text { name: file, .. }) = &from;
    let judge = if args.stored { Judge::AsStored } else { Judge::AsFound };
    let checked = app.check(from.clone(), judge).await;
    let text =
        if args.json { format!("{}\n", as_json(file, &checked)) } else { as_text(file, &checked, screen) };
    print(&text);
    if checked.mistakes.is_empty() { EXIT_OK } else { EXIT_USAGE }
}

fn as_text(file: &str, checked: &Checked, screen: Screen) -> String {
    if checked.mistakes.is_empty() {
        let lines = [
            say!("ok: pipeline {file}", file = sanitize(file, usize::MAX)),
            say!("ok: credentials"),
            say!("ok: store"),
        ];
        return lines.iter().map(|line| screen.say(line) + "\n").collect();
    }
    checked.mistakes.iter().map(|(_, m)| sanitize(&screen.say(&m.words()), usize::MAX) + "\n").collect()
}

fn as_json(file: &str, checked: &Checked) -> Value {
    let config = checked.config.as_ref();
    let diagnostics: Vec<Value> = checked
        .mistakes
        .iter()
        .map(|(part, m)| json!({ "kind": part, "place": m.place, "message": m.message, "help": m.help }))
        .collect();
    json!({
        "pipeline": file,
        "connection": config.map(|config| &config.connection),
        "target": config.map(|config| config.target.endpoint.kind()),
        "needs": config.map_or(&[][..], |config| credentials::needed(&config.target.endpoint)),
        "optional": credentials::OPTIONAL,
        "diagnostics": diagnostics,
    })
}

/// `schema`.
pub(super) fn schema(screen: Screen) -> u8 {
    match serde_json::to_string_pretty(&config::schema()) {
        Ok(text) => {
            print(&format!("{text}\n"));
            EXIT_OK
        }
        Err(error) => {
            print_error(&screen.say(&say!("error: the schema cannot be printed: {error}", error)));
            EXIT_FAILURE
        }
    }
}
