//! The command line: which function serves which command, and with which code it ends.
//!
//! stdout carries what a command is for (a tree and a summary, or one JSON value); progress, logs and the one line
//! of an error go to stderr. Nothing here knows OKKI or a target: a command fills in a request and asks
//! [`App`].

mod args;
mod beside;
mod check;
mod demo;
mod expect;
mod help;
mod preview;
mod progress;
mod quarantine;
mod report;
mod row;
mod run;
mod runs;
mod sandbox;
mod shell;
mod state;
mod summary;
mod term;
mod tree;
mod undo;
mod values;

use crate::app::{App, PipelineSource};
use crate::config::Env;
use crate::error::Error;
use crate::words::{Lang, Message, say};

pub use args::Args;
use args::Command;
#[cfg(test)]
pub(crate) use help::sentences;
pub use help::{language, parse};
use run::RunCommand;
use term::{Screen, print_error, sanitize};

const EXIT_OK: u8 = 0;
const EXIT_FAILURE: u8 = 1;
/// The command, the pipeline or the credentials have to be corrected.
const EXIT_USAGE: u8 = 2;
/// Rows are quarantined, differ, or remain for the next run.
const EXIT_PARTIAL: u8 = 3;
/// The run was left before it ended: 128 + SIGINT, as a shell reports it.
const EXIT_INTERRUPTED: u8 = 130;

/// Runs the command and returns its exit code.
pub async fn dispatch(args: Args, lang: Lang) -> u8 {
    let env = Env::process();
    let screen = Screen::new(&env, args.verbose, lang);
    match args.command {
        Command::Sync(args) => run::run(&env, screen, &RunCommand::sync(&args)).await,
        Command::Plan(args) => run::run(&env, screen, &RunCommand::plan(&args)).await,
        Command::Verify(args) => run::run(&env, screen, &RunCommand::verify(&args)).await,
        Command::Preview(args) => preview::preview(&env, screen, &args).await,
        Command::Quarantine(command) => quarantine::dispatch(&env, screen, &command).await,
        Command::State(command) => state::dispatch(&env, screen, &command).await,
        Command::Row(args) => row::row(&env, screen, &args).await,
        Command::Undo(args) => undo::undo(&env, screen, &args).await,
        Command::Sandbox(args) => sandbox::serve(&env, screen, &args).await,
        Command::Check(args) => check::check(&env, screen, args).await,
        Command::Schema => check::schema(screen),
        Command::Report(args) => report::report(&env, screen, &args).await,
        Command::Runs(args) => runs::runs(&env, screen, &args).await,
        Command::Completions { shell } => shell::completions(screen, shell),
        Command::Man { command } => shell::man(screen, &command),
        Command::Demo => demo::demo(&env, screen).await,
    }
}

/// What to say if not even the async runtime starts.
pub fn no_runtime(error: &std::io::Error, lang: Lang) -> String {
    say!("error: the async runtime cannot start: {error}", error).in_language(lang)
}

/// The file that `--pipeline` names, else the app's default.
fn pipeline(app: &App, file: Option<&String>) -> PipelineSource {
    file.map_or_else(|| app.default_pipeline(), |file| PipelineSource::File(file.clone()))
}

/// Says what went wrong, and returns the code that the command ends with.
fn failed(screen: Screen, error: &Error) -> u8 {
    let line = sanitize(&error.line_in(screen.lang), usize::MAX);
    print_error(&screen.say(&say!("error: {line}", line)));
    error.kind.exit_code()
}

fn cannot_start(screen: Screen, what: Message, error: &std::io::Error) -> u8 {
    print_error(&screen.say(&say!("error: {what}: {error}", what, error)));
    EXIT_FAILURE
}
