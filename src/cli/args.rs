//! Commands and options. The doc comments of fields and variants are the text of `--help`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::sync::{CHANGES, Digest};
use okki_sync_sandbox::{ChangeMix, IdCheck, Options};

use super::runs::Since;
use crate::words::phrase;

const EXIT_CODES: &str = "Exit codes: 0 done · 1 failed · 2 bad usage, pipeline or credentials · \
                          3 done in part (rows quarantined, differences found, or work left for the next run)";

/// A thousand a second: more would only keep the sandbox busy with itself.
const MOST_CHANGES_PER_MINUTE: f64 = 60_000.0;

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
    pub(super) command: Command,
}

#[derive(Debug, Clone, Subcommand)]
pub(super) enum Command {
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
pub(super) struct SyncArgs {
    /// Let this run delete more than the guard allows
    #[arg(long)]
    pub(super) allow_mass_delete: bool,
    #[command(flatten)]
    pub(super) only: OnlyArgs,
    /// Do what the plan of this digest showed and nothing else; for it, the guard allows every deletion
    #[arg(long, value_name = "DIGEST", conflicts_with = "allow_mass_delete")]
    pub(super) approve: Option<Digest>,
    // Last: its help heading covers every option after it.
    #[command(flatten)]
    pub(super) run: RunArgs,
}

#[derive(Debug, Clone, clap::Args)]
pub(super) struct PlanArgs {
    /// Let this run plan more deletions than the guard allows
    #[arg(long)]
    pub(super) allow_mass_delete: bool,
    #[command(flatten)]
    pub(super) only: OnlyArgs,
    /// Show every changed line, however many there are
    #[arg(long)]
    pub(super) all: bool,
    /// Compare with what the target holds now, not with what it has acknowledged
    #[arg(long)]
    pub(super) from_target: bool,
    /// Rows whose changed fields are shown, at most
    #[arg(long, value_name = "N", default_value_t = CHANGES)]
    pub(super) changes: usize,
    // Last: its help heading covers every option after it.
    #[command(flatten)]
    pub(super) run: RunArgs,
}

#[derive(Debug, Clone, clap::Args)]
pub(super) struct VerifyArgs {
    /// Show every line that differs, however many there are
    #[arg(long)]
    pub(super) all: bool,
    /// Rows whose differing fields are shown, at most
    #[arg(long, value_name = "N", default_value_t = CHANGES)]
    pub(super) changes: usize,
    // Last: its help heading covers every option after it.
    #[command(flatten)]
    pub(super) run: RunArgs,
}

/// The rows that a person names.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct OnlyArgs {
    /// Send this row, changed or not, and no other; repeatable
    #[arg(long = "only", value_name = "ID")]
    pub(super) only_ids: Vec<String>,
    /// Send this group's row, or its products' rows, changed or not; repeatable
    #[arg(long = "group", value_name = "ID")]
    pub(super) only_groups: Vec<String>,
}

/// Options that `sync`, `plan` and `verify` share.
#[derive(Debug, Clone, clap::Args)]
#[command(mut_args(needs_sandbox))]
pub(super) struct RunArgs {
    /// Pipeline file, TOML or JSON [default: OKKI_SYNC_PIPELINE, else pipeline.toml]
    #[arg(long, value_name = "FILE")]
    pub(super) pipeline: Option<String>,
    /// Put the run report on stdout as JSON, and nothing else there
    #[arg(long)]
    pub(super) json: bool,
    /// Ignore the incremental cursor and read everything
    #[arg(long)]
    pub(super) full: bool,
    /// End in good order before this time has passed, for example 15m; the next run goes on from there
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(super) deadline: Option<Duration>,
    /// Use a sandbox in this process as source and target; no pipeline or credentials are needed
    #[arg(long)]
    pub(super) sandbox: bool,
    #[command(flatten, next_help_heading = "Sandbox")]
    pub(super) catalogue: CatalogueArgs,
}

/// Without `--sandbox` the catalogue's options would silently do nothing: makes them an error there.
fn needs_sandbox(arg: clap::Arg) -> clap::Arg {
    let of_catalogue = ["groups", "products", "seed", "dirty"].contains(&arg.get_id().as_str());
    if of_catalogue { arg.requires("sandbox") } else { arg }
}

/// What the sandbox's OKKI holds.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct CatalogueArgs {
    /// Number of product groups
    #[arg(long, value_name = "N")]
    pub(super) groups: Option<usize>,
    /// Number of products
    #[arg(long, value_name = "N")]
    pub(super) products: Option<usize>,
    /// Seed of the catalogue: the same seed gives the same names and prices
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<u64>,
    /// Mix in rows as a neglected CRM has them: no id, repeated ids, wrong types
    #[arg(long)]
    pub(super) dirty: bool,
}

impl CatalogueArgs {
    /// The sandbox's defaults, with what was asked for.
    pub(super) fn options(&self) -> Options {
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

#[derive(Debug, Clone, clap::Args)]
pub(super) struct SandboxArgs {
    /// Port of the local OKKI on loopback; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub(super) okki_port: u16,
    /// Port of the local target on loopback; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub(super) target_port: u16,
    /// Port of the page on loopback; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub(super) page_port: u16,
    #[command(flatten)]
    pub(super) catalogue: CatalogueArgs,
    /// Let people change so many products a minute, as long as the sandbox runs
    #[arg(long, value_name = "N", value_parser = changes_per_minute)]
    pub(super) edits_per_minute: Option<f64>,
    /// How these changes are shared among edits, creations and deletions (and restores, if there is a fourth number)
    #[arg(long, value_name = "N:N:N", requires = "edits_per_minute", default_value = "70:20:10")]
    pub(super) edit_mix: ChangeMix,
    /// Let the local Qeasy refuse ids that it already has, as a scheme with idCheck on does
    #[arg(long)]
    pub(super) id_check: bool,
    /// Let each answer take this long, for example 80ms
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(super) latency: Option<Duration>,
    /// Write the KEY=VALUE lines to this file too, once the sandbox answers
    #[arg(long, value_name = "PATH")]
    pub(super) env_file: Option<PathBuf>,
}

impl SandboxArgs {
    /// The sandbox's defaults, with what was asked for.
    pub(super) fn options(&self) -> Options {
        let mut options = self.catalogue.options();
        options.id_check = if self.id_check { IdCheck::CountedAsFailed } else { IdCheck::Off };
        if let Some(latency) = self.latency {
            options.latency = latency;
        }
        options.edits_per_minute = self.edits_per_minute.unwrap_or_default();
        options.edit_mix = self.edit_mix;
        options
    }
}

fn changes_per_minute(text: &str) -> Result<f64, &'static str> {
    let number = text.parse().ok().filter(|number| (0.0..=MOST_CHANGES_PER_MINUTE).contains(number));
    number.ok_or(phrase!("expected a number from 0 to 60000"))
}

#[derive(Debug, Clone, Subcommand)]
pub(super) enum StateCommand {
    /// Print the state of a connection for people
    Show(StateShowArgs),
    /// Rebuild the state from what the target holds; the old one is kept as .state.previous
    Rebuild(StateRebuildArgs),
}

#[derive(Debug, Clone, clap::Args)]
pub(super) struct StateShowArgs {
    /// Pipeline file, TOML or JSON [default: OKKI_SYNC_PIPELINE, else pipeline.toml]
    #[arg(long, value_name = "FILE")]
    pub(super) pipeline: Option<String>,
    /// Put the state on stdout as JSON, and nothing else there
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Clone, clap::Args)]
pub(super) struct StateRebuildArgs {
    /// Pipeline file, TOML or JSON [default: OKKI_SYNC_PIPELINE, else pipeline.toml]
    #[arg(long, value_name = "FILE")]
    pub(super) pipeline: Option<String>,
    /// Take over the rows that only the target has: the next sync deletes them
    #[arg(long)]
    pub(super) own_extra: bool,
}

#[derive(Debug, Clone, clap::Args)]
pub(super) struct RowArgs {
    /// The id of a group or a product
    #[arg(value_name = "ID")]
    pub(super) id: String,
    /// Pipeline file, TOML or JSON [default: OKKI_SYNC_PIPELINE, else pipeline.toml]
    #[arg(long, value_name = "FILE")]
    pub(super) pipeline: Option<String>,
    /// Put it on stdout as JSON, and nothing else there
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Clone, clap::Args)]
pub(super) struct UndoArgs {
    /// The run whose changes go back, by its run id
    #[arg(value_name = "RUN")]
    pub(super) run: String,
    /// Send the former content; without it, it is only shown
    #[arg(long)]
    pub(super) yes: bool,
    /// Delete the rows that the run created
    #[arg(long)]
    pub(super) deletes: bool,
    /// Pipeline file, TOML or JSON [default: OKKI_SYNC_PIPELINE, else pipeline.toml]
    #[arg(long, value_name = "FILE")]
    pub(super) pipeline: Option<String>,
    /// Put it on stdout as JSON, and nothing else there
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Clone, clap::Args)]
pub(super) struct CheckArgs {
    /// Pipeline file, TOML or JSON [default: OKKI_SYNC_PIPELINE, else pipeline.toml]
    #[arg(long, value_name = "FILE")]
    pub(super) pipeline: Option<String>,
    /// Judge the file as if it were in the store: it may name only the hosts of OKKI_SYNC_HOSTS
    #[arg(long)]
    pub(super) stored: bool,
    /// Log in on both sides too, read one row, and ask for the scheme; nothing is written there
    #[arg(long)]
    pub(super) online: bool,
    /// Put connection, target, needed credentials and mistakes on stdout as JSON, and nothing else there
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Clone, clap::Args)]
pub(super) struct PreviewArgs {
    /// Pipeline file, TOML or JSON [default: OKKI_SYNC_PIPELINE, else pipeline.toml]
    #[arg(long, value_name = "FILE")]
    pub(super) pipeline: Option<String>,
    /// Show this row; repeatable. Where the rows use products, the source is read as plan reads it
    #[arg(long = "id", value_name = "ID")]
    pub(super) ids: Vec<String>,
    /// Show at most so many rows, and as many that cannot go through
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(super) limit: usize,
    /// Take the rows from this file, as OKKI sends them (answers, or rows); nothing is called
    #[arg(long, value_name = "FILE")]
    pub(super) from: Option<String>,
    /// Compare with the rows in this file, and end with exit code 3 if they differ
    #[arg(long, value_name = "FILE", requires = "from")]
    pub(super) expect: Option<String>,
    /// Put the rows on stdout as JSON, and nothing else there
    #[arg(long)]
    pub(super) json: bool,
}

/// Shells whose completions are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, Clone, clap::Args)]
pub(super) struct RunsArgs {
    /// Pipeline file, TOML or JSON [default: OKKI_SYNC_PIPELINE, else pipeline.toml]
    #[arg(long, value_name = "FILE")]
    pub(super) pipeline: Option<String>,
    /// Only runs that began since then: 24h, 7days, 2026-11-24 (UTC), or a time in RFC 3339
    #[arg(long, value_name = "TIME", value_parser = Since::parse)]
    pub(super) since: Option<Since>,
    /// Only runs that failed
    #[arg(long)]
    pub(super) failed: bool,
    /// Show at most this number of runs
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = run_limit)]
    pub(super) limit: usize,
    /// Put the run reports on stdout as a JSON array, and nothing else there
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Clone, Subcommand)]
pub(super) enum QuarantineCommand {
    /// List the rows that cannot go through now, with their reasons
    List(QuarantineArgs),
    /// Show all that is known of a row
    Show {
        /// Its id, or what `list` shows in its place
        #[arg(value_name = "ID")]
        id: String,
        #[command(flatten)]
        args: QuarantineArgs,
    },
    /// Let the next run send refused rows, and let dismissed rows count again
    Retry {
        /// Their ids
        #[arg(value_name = "ID", required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        args: QuarantineArgs,
    },
    /// Let rows not count until their content changes
    Dismiss {
        /// Their ids
        #[arg(value_name = "ID", required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        args: QuarantineArgs,
    },
}

#[derive(Debug, Clone, clap::Args)]
pub(super) struct QuarantineArgs {
    /// Pipeline file, TOML or JSON [default: OKKI_SYNC_PIPELINE, else pipeline.toml]
    #[arg(long, value_name = "FILE")]
    pub(super) pipeline: Option<String>,
    /// Put the rows on stdout as JSON, and nothing else there
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Clone, clap::Args)]
pub(super) struct ReportArgs {
    /// The run's id, as `runs` lists it [default: the last run]
    #[arg(value_name = "RUN")]
    pub(super) run: Option<String>,
    /// Write the run as an HTML page to this file
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,
    /// Pipeline file, TOML or JSON [default: OKKI_SYNC_PIPELINE, else pipeline.toml]
    #[arg(long, value_name = "FILE")]
    pub(super) pipeline: Option<String>,
    /// Put the run report on stdout as JSON, and nothing else there
    #[arg(long)]
    pub(super) json: bool,
}

fn run_limit(text: &str) -> Result<usize, &'static str> {
    let number = text.parse().ok().filter(|number| (1..=1000).contains(number));
    number.ok_or(phrase!("expected a number from 1 to 1000"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

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
