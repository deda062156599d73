//! `demo`: sync, people's edits, plan, sync, verify, in a sandbox in the same process.

use okki_sync_sandbox::Options;

use super::term::{Screen, Signals, print};
use super::{EXIT_INTERRUPTED, EXIT_OK, cannot_start, run, sandbox, tree};
use crate::app::App;
use crate::config::Env;
use crate::report::{Mode, Status};
use crate::sync::RunRequest;
use crate::words::{Message, say};

const GROUPS: usize = 120;
const PRODUCTS: usize = 3_000;

/// Each step runs in this mode below this heading.
const STEPS: [(Mode, Message); 4] = [
    (Mode::Sync, say!("1. sync: the target is empty, everything is new")),
    (Mode::Plan, say!("2. people have changed the catalogue in OKKI; plan: what would change")),
    (Mode::Sync, say!("3. sync: only the changes go out")),
    (Mode::Verify, say!("4. verify: the target read back and compared")),
];

/// The way on from here.
const PAGE: Message = say!(
    "To look at both sides and play with them: okki-sync sandbox (here: cargo run -q -- sandbox) \
     serves a page, and prints its address."
);

/// Plays the steps and returns the gravest exit code. Ends early where a step fails or pauses, because the next ones
/// would then tell another story.
pub(super) async fn demo(env: &Env, screen: Screen) -> u8 {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return cannot_start(screen, say!("signals cannot be received"), &error),
    };
    let options = Options { groups: GROUPS, products: PRODUCTS, ..Options::default() };
    let (sandbox, serving) = match sandbox::start(options).await {
        Ok(started) => started,
        Err(error) => return cannot_start(screen, say!("the sandbox cannot start"), &error),
    };
    // A memory store lives as long as its App: one App for all steps, and nothing is left behind.
    let app = App::new(sandbox::environment(env, &serving).with("OKKI_SYNC_STORE", "memory:"));
    let mut worst = EXIT_OK;
    for (mode, heading) in STEPS {
        if mode == Mode::Plan {
            sandbox.simulate_edits();
        }
        print(&format!("\n{}\n", screen.style().bold(&screen.say(&heading))));
        let request = RunRequest::new(mode);
        let Some(outcome) =
            run::run_watched(&app, sandbox::pipeline(), &request, screen.view(), &mut signals).await
        else {
            return EXIT_INTERRUPTED;
        };
        run::show(&outcome, tree::Lines::First, screen);
        let code = run::exit_code(&outcome);
        if matches!(outcome.report.status, Status::Failed | Status::Paused) {
            return code;
        }
        worst = worst.max(code);
    }
    print(&format!("\n{}\n", screen.say(&PAGE)));
    worst
}
