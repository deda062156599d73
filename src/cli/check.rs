//! `check` and `schema`: what is wrong with a setup, and what a pipeline file may say.

use serde_json::{Value, json};

use super::args::CheckArgs;
use super::term::{Screen, print, print_error, sanitize};
use super::{EXIT_FAILURE, EXIT_OK, EXIT_USAGE, pipeline};
use crate::app::{App, Checked, Judge, Online, PipelineSource};
use crate::config::{self, Env, credentials};
use crate::words::{Message, Words as _, say};

/// `check`.
pub(super) async fn check(env: &Env, screen: Screen, args: CheckArgs) -> u8 {
    let app = App::new(env.clone());
    let from = pipeline(&app, args.pipeline.as_ref());
    let (PipelineSource::File(file)
    | PipelineSource::Connection(file)
    | PipelineSource::Text { name: file, .. }) = &from;
    let judge = if args.stored { Judge::AsStored } else { Judge::AsFound };
    let mut checked = app.check(from.clone(), judge).await;
    if args.online {
        app.check_online(&from, &mut checked).await;
    }
    match args.json {
        true => print(&format!("{}\n", as_json(file, &checked, args.online))),
        false => screen.print(&as_text(file, &checked, screen)),
    }
    if checked.mistakes.is_empty() { EXIT_OK } else { EXIT_USAGE }
}

fn as_text(file: &str, checked: &Checked, screen: Screen) -> String {
    if checked.mistakes.is_empty() {
        let mut lines = vec![
            say!("ok: pipeline {file}", file = sanitize(file, usize::MAX)),
            say!("ok: credentials"),
            say!("ok: store"),
        ];
        lines.extend(checked.online.as_ref().map(ok_online).into_iter().flatten());
        return lines.iter().map(|line| screen.say(line) + "\n").collect();
    }
    let mistakes = checked.mistakes.iter().map(|(_, mistake)| mistake.words());
    // One side may be well where the other is not.
    let well = checked.online.as_ref().map(ok_online).into_iter().flatten();
    mistakes.chain(well).map(|line| sanitize(&screen.say(&line), usize::MAX) + "\n").collect()
}

fn ok_online(online: &Online) -> Vec<Message> {
    let source = online.source.map(|totals| match totals.products {
        Some(products) => {
            say!("ok: source (groups: {groups}, products: {products})", groups = totals.groups, products)
        }
        None => say!("ok: source (groups: {groups})", groups = totals.groups),
    });
    let target = online.target.map(|totals| match totals.rows {
        Some(rows) => say!("ok: target (rows: {rows})", rows),
        None => say!("ok: target"),
    });
    source.into_iter().chain(target).collect()
}

fn as_json(file: &str, checked: &Checked, is_online: bool) -> Value {
    let config = checked.config.as_ref();
    let diagnostics: Vec<Value> = checked
        .mistakes
        .iter()
        .map(|(part, m)| json!({ "kind": part, "place": m.place, "message": m.message, "help": m.help }))
        .collect();
    let mut found = json!({
        "pipeline": file,
        "connection": config.map(|config| &config.connection),
        "target": config.map(|config| config.target.endpoint.kind()),
        "needs": config.map_or(&[][..], |config| credentials::needed(&config.target.endpoint)),
        "optional": credentials::OPTIONAL,
        "diagnostics": diagnostics,
    });
    if is_online && let Some(fields) = found.as_object_mut() {
        fields.insert("online".to_owned(), json!(checked.online));
    }
    found
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
