//! Options of commands about single rows and about runs that have ended.

use std::path::PathBuf;

use clap::Subcommand;

use crate::cli::runs::Since;
use crate::words::phrase;

#[derive(Debug, Clone, clap::Args)]
pub(in crate::cli) struct RowArgs {
    /// The id of a group or a product
    #[arg(value_name = "ID")]
    pub(in crate::cli) id: String,
    /// Pipeline file, TOML or JSON [default: OKKI_SYNC_PIPELINE, else pipeline.toml]
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) pipeline: Option<String>,
    /// Put it on stdout as JSON, and nothing else there
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Clone, clap::Args)]
pub(in crate::cli) struct UndoArgs {
    /// The run whose changes go back, by its run id
    #[arg(value_name = "RUN")]
    pub(in crate::cli) run: String,
    /// Send the former content; without it, it is only shown
    #[arg(long)]
    pub(in crate::cli) yes: bool,
    /// Delete the rows that the run created
    #[arg(long)]
    pub(in crate::cli) deletes: bool,
    /// Pipeline file, TOML or JSON [default: OKKI_SYNC_PIPELINE, else pipeline.toml]
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) pipeline: Option<String>,
    /// Put it on stdout as JSON, and nothing else there
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Clone, clap::Args)]
pub(in crate::cli) struct PreviewArgs {
    /// Pipeline file, TOML or JSON [default: OKKI_SYNC_PIPELINE, else pipeline.toml]
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) pipeline: Option<String>,
    /// Show this row; repeatable. Where the rows use products, the source is read as plan reads it
    #[arg(long = "id", value_name = "ID")]
    pub(in crate::cli) ids: Vec<String>,
    /// Show at most so many rows, and as many that cannot go through
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(in crate::cli) limit: usize,
    /// Take the rows from this file, as OKKI sends them (answers, or rows); nothing is called
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) from: Option<String>,
    /// Compare with the rows in this file, and end with exit code 3 if they differ
    #[arg(long, value_name = "FILE", requires = "from")]
    pub(in crate::cli) expect: Option<String>,
    /// Put the rows on stdout as JSON, and nothing else there
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

/// Shells whose completions are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::cli) enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, Clone, clap::Args)]
pub(in crate::cli) struct RunsArgs {
    /// Pipeline file, TOML or JSON [default: OKKI_SYNC_PIPELINE, else pipeline.toml]
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) pipeline: Option<String>,
    /// Only runs that began since then: 24h, 7days, 2026-11-24 (UTC), or a time in RFC 3339
    #[arg(long, value_name = "TIME", value_parser = Since::parse)]
    pub(in crate::cli) since: Option<Since>,
    /// Only runs that failed
    #[arg(long)]
    pub(in crate::cli) failed: bool,
    /// Show at most this number of runs
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = run_limit)]
    pub(in crate::cli) limit: usize,
    /// Put the run reports on stdout as a JSON array, and nothing else there
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Clone, Subcommand)]
pub(in crate::cli) enum QuarantineCommand {
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
pub(in crate::cli) struct QuarantineArgs {
    /// Pipeline file, TOML or JSON [default: OKKI_SYNC_PIPELINE, else pipeline.toml]
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) pipeline: Option<String>,
    /// Put the rows on stdout as JSON, and nothing else there
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Clone, clap::Args)]
pub(in crate::cli) struct ReportArgs {
    /// The run's id, as `runs` lists it [default: the last run]
    #[arg(value_name = "RUN")]
    pub(in crate::cli) run: Option<String>,
    /// Write the run as an HTML page to this file
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) html: Option<PathBuf>,
    /// Pipeline file, TOML or JSON [default: OKKI_SYNC_PIPELINE, else pipeline.toml]
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) pipeline: Option<String>,
    /// Put the run report on stdout as JSON, and nothing else there
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

fn run_limit(text: &str) -> Result<usize, &'static str> {
    let number = text.parse().ok().filter(|number| (1..=1000).contains(number));
    number.ok_or(phrase!("expected a number from 1 to 1000"))
}
