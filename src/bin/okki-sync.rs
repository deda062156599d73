//! `okki-sync`, the command line: see `okki-sync --help`.

use std::io::Write as _;
use std::process::ExitCode;

use okki_sync::Env;
use okki_sync::cli;

fn main() -> ExitCode {
    let lang = cli::language();
    let args = cli::parse(lang);
    okki_sync::logging::init_terminal(Env::process().log_level().as_deref(), args.verbose);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            // Nobody may be listening; the exit code still says it.
            let _ = writeln!(std::io::stderr(), "{}", cli::no_runtime(&error, lang));
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(cli::dispatch(args, lang));
    // A run that was left behind by a second Ctrl-C must not hold up the exit.
    runtime.shutdown_background();
    ExitCode::from(code)
}
