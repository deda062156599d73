//! Logging: JSON lines in Lambda, readable lines on a terminal's stderr.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

fn filter(level: Option<&str>, default: LevelFilter) -> Targets {
    // The libraries' own debug lines may show headers: they stay at warnings, whatever the level.
    let level =
        level.and_then(|level| level.parse::<tracing::Level>().ok()).map_or(default, LevelFilter::from_level);
    Targets::new().with_default(LevelFilter::WARN).with_target("okki_sync", level)
}

/// One JSON object a line on stdout, as CloudWatch wants it. A `level` that is not one counts as `None`: information.
/// A second call does nothing.
pub fn init_lambda(level: Option<&str>) {
    let lines = layer().json().flatten_event(true).with_current_span(true).with_span_list(false);
    let _ = tracing_subscriber::registry()
        .with(lines.with_target(false))
        .with(filter(level, LevelFilter::INFO))
        .try_init();
}

/// Plain lines on stderr: warnings, or with `verbose` each step, unless `level` says otherwise. A second call does nothing.
pub fn init_terminal(level: Option<&str>, verbose: bool) {
    let lines = layer().with_writer(std::io::stderr).with_ansi(false).with_target(false);
    let default = if verbose { LevelFilter::DEBUG } else { LevelFilter::WARN };
    let _ = tracing_subscriber::registry().with(lines).with(filter(level, default)).try_init();
}
