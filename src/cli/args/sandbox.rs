//! Options of the sandbox.

use std::path::PathBuf;
use std::time::Duration;

use okki_sync_sandbox::{ChangeMix, IdCheck, Options};

use super::CatalogueArgs;
use crate::words::phrase;

/// A thousand a second: more would only keep the sandbox busy with itself.
const MOST_CHANGES_PER_MINUTE: f64 = 60_000.0;

#[derive(Debug, Clone, clap::Args)]
pub(in crate::cli) struct SandboxArgs {
    /// Port of the local OKKI on loopback; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub(in crate::cli) okki_port: u16,
    /// Port of the local target on loopback; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub(in crate::cli) target_port: u16,
    /// Port of the page on loopback; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub(in crate::cli) page_port: u16,
    #[command(flatten)]
    pub(in crate::cli) catalogue: CatalogueArgs,
    /// Let people change so many products a minute, as long as the sandbox runs
    #[arg(long, value_name = "N", value_parser = changes_per_minute)]
    pub(in crate::cli) edits_per_minute: Option<f64>,
    /// How these changes are shared among edits, creations and deletions (and restores, if there is a fourth number)
    #[arg(long, value_name = "N:N:N", requires = "edits_per_minute", default_value = "70:20:10")]
    pub(in crate::cli) edit_mix: ChangeMix,
    /// Let the local Qeasy refuse ids that it already has, as a scheme with idCheck on does
    #[arg(long)]
    pub(in crate::cli) id_check: bool,
    /// Let each answer take this long, for example 80ms
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(in crate::cli) latency: Option<Duration>,
    /// Write the KEY=VALUE lines to this file too, once the sandbox answers
    #[arg(long, value_name = "PATH")]
    pub(in crate::cli) env_file: Option<PathBuf>,
}

impl SandboxArgs {
    /// The sandbox's defaults, with what was asked for.
    pub(in crate::cli) fn options(&self) -> Options {
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
