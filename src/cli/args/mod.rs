//! Commands and options. The doc comments of fields and variants are the text of `--help`.

mod records;
mod sandbox;

use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::sync::{CHANGES, Digest};
use okki_sync_sandbox::Options;

pub(super) use records::{
    PreviewArgs, QuarantineArgs, QuarantineCommand, ReportArgs, RowArgs, RunsArgs, Shell, UndoArgs,
};
pub(super) use sandbox::SandboxArgs;

const EXIT_CODES: &str = "Exit codes: 0 done · 1 failed · 2 bad usage, pipeline or credentials · \
                          3 done in part (rows quarantined, differences found, or work left for the next run)";

/// Syncs OKKI CRM (小满) product groups to Qeasy (轻易云) and other HTTP targets.
#[derive(Debug, Clone, Parser)]
#[command(name = "okki-sync", version, propagate_version = true, after_help = EXIT_CODES)]
pub struct Args {
    /// Log more, on stderr (progress is then shown as plain lines)
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// Language of everything that people read, zh or en [default: OKKI_SYNC_LANG, else the locale]
    #[arg(long, global = true, value_name = "LANG")]
    pub lang: Option<String>,
    #[command(subcommand)]
    pub(in crate::cli) command: Command,
}

#[derive(Debug, Clone, Subcommand)]
pub(in crate::cli) enum Command {
    /// Fetch, transform, plan, write in batches, remember
    Sync(SyncArgs),
    /// Show what a sync would change and why; writes nothing
    Plan(PlanArgs),
    /// Read the target back and compare it with the source; writes nothing
    Verify(VerifyArgs),
    /// Show source rows beside the rows that they become; writes nothing
    Preview(PreviewArgs),
    /// List the rows that cannot go through, try them again, or silence them
    #[command(subcommand)]
    Quarantine(QuarantineCommand),
    /// Show what the target has acknowledged, or rebuild it from the target
    #[command(subcommand)]
    State(StateCommand),
    /// Show where a row is and why, from the source to what was sent when
    Row(RowArgs),
    /// Show, and with --yes send, the former content of the rows that a run changed
    Undo(UndoArgs),
    /// Serve a local OKKI and Qeasy, and a page on both, on loopback
    Sandbox(SandboxArgs),
    /// Report every mistake in pipeline, credentials and store at once
    Check(CheckArgs),
    /// Print the JSON Schema of the pipeline file
    Schema,
    /// List the last runs, newest first, and what stopped them
    Runs(RunsArgs),
    /// Show a run again, or write it as one HTML page
    Report(ReportArgs),
    /// Print the completion script of a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the man page, or the page of a command, for `man -l`
    Man {
        /// A command, as in `man state show`
        #[arg(value_name = "COMMAND")]
        command: Vec<String>,
    },
    /// Run the whole story against the sandbox: sync, people's changes, plan, sync, verify
    Demo,
}

#[derive(Debug, Clone, clap::Args)]
pub(in crate::cli) struct SyncArgs {
    /// Let this run delete more than the guard allows
    #[arg(long)]
    pub(in crate::cli) allow_mass_delete: bool,
    #[command(flatten)]
    pub(in crate::cli) only: OnlyArgs,
    /// Do what the plan of this digest showed and nothing else; for it, the guard allows every deletion
    #[arg(long, value_name = "DIGEST", conflicts_with = "allow_mass_delete")]
    pub(in crate::cli) approve: Option<Digest>,
    // Last: its help heading covers every option after it.
    #[command(flatten)]
    pub(in crate::cli) run: RunArgs,
}

#[derive(Debug, Clone, clap::Args)]
pub(in crate::cli) struct PlanArgs {
    /// Let this run plan more deletions than the guard allows
    #[arg(long)]
    pub(in crate::cli) allow_mass_delete: bool,
    #[command(flatten)]
    pub(in crate::cli) only: OnlyArgs,
    /// Show every changed line, however many there are
    #[arg(long)]
    pub(in crate::cli) all: bool,
    /// Compare with what the target holds now, not with what it has acknowledged
    #[arg(long)]
    pub(in crate::cli) from_target: bool,
    /// Rows whose changed fields are shown, at most
    #[arg(long, value_name = "N", default_value_t = CHANGES)]
    pub(in crate::cli) changes: usize,
    // Last: its help heading covers every option after it.
    #[command(flatten)]
    pub(in crate::cli) run: RunArgs,
}

#[derive(Debug, Clone, clap::Args)]
pub(in crate::cli) struct VerifyArgs {
    /// Show every line that differs, however many there are
    #[arg(long)]
    pub(in crate::cli) all: bool,
    /// Rows whose differing fields are shown, at most
    #[arg(long, value_name = "N", default_value_t = CHANGES)]
    pub(in crate::cli) changes: usize,
    // Last: its help heading covers every option after it.
    #[command(flatten)]
    pub(in crate::cli) run: RunArgs,
}

/// The rows that a person names.
#[derive(Debug, Clone, Default, clap::Args)]
pub(in crate::cli) struct OnlyArgs {
    /// Send this row, changed or not, and no other; repeatable
    #[arg(long = "only", value_name = "ID")]
    pub(in crate::cli) only_ids: Vec<String>,
    /// Send this group's row, or its products' rows, changed or not; repeatable
    #[arg(long = "group", value_name = "ID")]
    pub(in crate::cli) only_groups: Vec<String>,
}

/// Options that `sync`, `plan` and `verify` share.
#[derive(Debug, Clone, clap::Args)]
#[command(mut_args(needs_sandbox))]
pub(in crate::cli) struct RunArgs {
    /// Pipeline file, TOML or JSON [default: OKKI_SYNC_PIPELINE, else pipeline.toml]
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) pipeline: Option<String>,
    /// Put the run report on stdout as JSON, and nothing else there
    #[arg(long)]
    pub(in crate::cli) json: bool,
    /// Ignore the incremental cursor and read everything
    #[arg(long)]
    pub(in crate::cli) full: bool,
    /// End in good order before this time has passed, for example 15m; the next run goes on from there
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(in crate::cli) deadline: Option<Duration>,
    /// Use a sandbox in this process as source and target; no pipeline or credentials are needed
    #[arg(long)]
    pub(in crate::cli) sandbox: bool,
    #[command(flatten, next_help_heading = "Sandbox")]
    pub(in crate::cli) catalogue: CatalogueArgs,
}

/// Without `--sandbox` the catalogue's options would silently do nothing: makes them an error there.
fn needs_sandbox(arg: clap::Arg) -> clap::Arg {
    let of_catalogue = ["groups", "products", "seed", "dirty"].contains(&arg.get_id().as_str());
    if of_catalogue { arg.requires("sandbox") } else { arg }
}

/// What the sandbox's OKKI holds.
#[derive(Debug, Clone, Default, clap::Args)]
pub(in crate::cli) struct CatalogueArgs {
    /// Number of product groups
    #[arg(long, value_name = "N")]
    pub(in crate::cli) groups: Option<usize>,
    /// Number of products
    #[arg(long, value_name = "N")]
    pub(in crate::cli) products: Option<usize>,
    /// Seed of the catalogue: the same seed gives the same names and prices
    #[arg(long, value_name = "N")]
    pub(in crate::cli) seed: Option<u64>,
    /// Mix in rows as a neglected CRM has them: no id, repeated ids, wrong types
    #[arg(long)]
    pub(in crate::cli) dirty: bool,
}

impl CatalogueArgs {
    /// The sandbox's defaults, with what was asked for.
    pub(in crate::cli) fn options(&self) -> Options {
        let mut options = Options { dirty: self.dirty, ..Options::default() };
        if let Some(groups) = self.groups {
            options.groups = groups;
        }
        if let Some(products) = self.products {
            options.products = products;
        }
        if let Some(seed) = self.seed {
            options.seed = seed;
        }
        options
    }
}

#[derive(Debug, Clone, Subcommand)]
pub(in crate::cli) enum StateCommand {
    /// Print the state of a connection for people
    Show(StateShowArgs),
    /// Rebuild the state from what the target holds; the old one is kept as .state.previous
    Rebuild(StateRebuildArgs),
}

#[derive(Debug, Clone, clap::Args)]
pub(in crate::cli) struct StateShowArgs {
    /// Pipeline file, TOML or JSON [default: OKKI_SYNC_PIPELINE, else pipeline.toml]
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) pipeline: Option<String>,
    /// Put the state on stdout as JSON, and nothing else there
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Clone, clap::Args)]
pub(in crate::cli) struct StateRebuildArgs {
    /// Pipeline file, TOML or JSON [default: OKKI_SYNC_PIPELINE, else pipeline.toml]
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) pipeline: Option<String>,
    /// Take over the rows that only the target has: the next sync deletes them
    #[arg(long)]
    pub(in crate::cli) own_extra: bool,
}

#[derive(Debug, Clone, clap::Args)]
pub(in crate::cli) struct CheckArgs {
    /// Pipeline file, TOML or JSON [default: OKKI_SYNC_PIPELINE, else pipeline.toml]
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) pipeline: Option<String>,
    /// Judge the file as if it were in the store: it may name only the hosts of OKKI_SYNC_HOSTS
    #[arg(long)]
    pub(in crate::cli) stored: bool,
    /// Log in on both sides too, read one row, and ask for the scheme; nothing is written there
    #[arg(long)]
    pub(in crate::cli) online: bool,
    /// Put connection, target, needed credentials and mistakes on stdout as JSON, and nothing else there
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use okki_sync_sandbox::ChangeMix;

    use super::*;
    use clap::CommandFactory as _;
    use clap::error::ErrorKind;

    fn refused(words: &[&str]) -> Option<ErrorKind> {
        Args::try_parse_from(words).err().map(|error| error.kind())
    }

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_run_takes_its_options() {
        let words = ["okki-sync", "sync", "--sandbox", "--json", "--full", "--allow-mass-delete"];
        let more = ["--deadline", "15m", "--groups", "7", "--dirty", "-v"];
        let args = Args::try_parse_from(words.iter().chain(&more)).unwrap();
        assert!(args.verbose);
        let Command::Sync(sync) = args.command else { unreachable!() };
        assert!(sync.allow_mass_delete && sync.run.sandbox && sync.run.json && sync.run.full);
        assert_eq!(sync.run.deadline, Some(Duration::from_secs(900)));
        let (options, usual) = (sync.run.catalogue.options(), Options::default());
        assert_eq!((options.groups, options.products, options.dirty), (7, usual.products, true));
    }

    #[test]
    fn people_of_a_sandbox_work_as_told() {
        let options = |words: &[&str]| {
            let words = ["okki-sync", "sandbox"].iter().chain(words);
            let Command::Sandbox(args) = Args::try_parse_from(words).unwrap().command else { unreachable!() };
            args.options()
        };
        assert_eq!(options(&[]).edits_per_minute, 0.0);
        let busy = options(&["--edits-per-minute", "7.5"]);
        assert_eq!((busy.edits_per_minute, busy.edit_mix), (7.5, ChangeMix::default()));
        let mixed = options(&["--edits-per-minute", "1", "--edit-mix", "1:0:2:3"]);
        assert_eq!(mixed.edit_mix, ChangeMix { edits: 1, creations: 0, deletions: 2, restores: 3 });
    }

    #[test]
    fn bad_usage_is_refused() {
        let sandbox = |words: &[&str]| refused(&[&["okki-sync", "sandbox"], words].concat());
        for number in ["-1", "inf", "NaN", "x"] {
            assert_eq!(
                sandbox(&[&format!("--edits-per-minute={number}")]),
                Some(ErrorKind::ValueValidation),
                "{number}"
            );
        }
        for mix in ["70:20", "0:0:0", "1:x:1"] {
            assert_eq!(
                sandbox(&["--edits-per-minute=1", "--edit-mix", mix]),
                Some(ErrorKind::ValueValidation),
                "{mix}"
            );
        }
        assert_eq!(sandbox(&["--edit-mix", "1:1:1"]), Some(ErrorKind::MissingRequiredArgument));
        assert_eq!(
            refused(&["okki-sync", "sync", "--groups", "7"]),
            Some(ErrorKind::MissingRequiredArgument)
        );
        assert_eq!(refused(&["okki-sync", "verify", "--dirty"]), Some(ErrorKind::MissingRequiredArgument));
        assert_eq!(
            refused(&["okki-sync", "verify", "--allow-mass-delete"]),
            Some(ErrorKind::UnknownArgument)
        );
        assert_eq!(refused(&["okki-sync", "sync", "--deadline", "soon"]), Some(ErrorKind::ValueValidation));
        assert_eq!(refused(&["okki-sync", "sandbox", "--groups", "7"]), None);
    }
}
