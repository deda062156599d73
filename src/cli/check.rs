//! `check` and `schema`: what is wrong with a setup, and what a pipeline file may say.

use serde_json::{Value, json};

use super::args::CheckArgs;
use super::term::{print, print_error, sanitize};
use super::{EXIT_FAILURE, EXIT_OK, EXIT_USAGE, pipeline};
use crate::app::{App, Checked, Judge, PipelineSource};
use crate::config::{self, Env, credentials};

/// `check`.
pub(super) async fn check(env: &Env, args: CheckArgs) -> u8 {
    let app = App::new(env.clone());
    let from = pipeline(&app, args.pipeline.as_ref());
    let (PipelineSource::File(file)
    | PipelineSource::Connection(file)
    | PipelineSource::Text { name: file, .. }) = &from;
    let judge = if args.stored { Judge::AsStored } else { Judge::AsFound };
    let checked = app.check(from.clone(), judge).await;
    let text = if args.json { format!("{}\n", as_json(file, &checked)) } else { as_text(file, &checked) };
    print(&text);
    if checked.mistakes.is_empty() { EXIT_OK } else { EXIT_USAGE }
}

fn as_text(file: &str, checked: &Checked) -> String {
    if checked.mistakes.is_empty() {
        return format!("ok: pipeline {}\nok: credentials\nok: store\n", sanitize(file, usize::MAX));
    }
    checked.mistakes.iter().map(|(_, m)| sanitize(&m.to_string(), usize::MAX) + "\n").collect()
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
pub(super) fn schema() -> u8 {
    match serde_json::to_string_pretty(&config::schema()) {
        Ok(text) => {
            print(&format!("{text}\n"));
            EXIT_OK
        }
        Err(error) => {
            print_error(&format!("error: the schema cannot be printed: {error}"));
            EXIT_FAILURE
        }
    }
}
