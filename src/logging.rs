//! Logging: JSON lines in Lambda, readable lines on a terminal's stderr.

use tracing_subscriber::EnvFilter;

fn filter(default: &str) -> EnvFilter {
    // The libraries' own debug lines may show headers; they stay at warnings whatever the level.
    let level = std::env::var("AWS_LAMBDA_LOG_LEVEL")
        .or_else(|_| std::env::var("OKKI_SYNC_LOG"))
        .ok()
        .filter(|level| level.parse::<tracing::Level>().is_ok())
        .unwrap_or_else(|| default.to_owned());
    EnvFilter::new(format!("warn,okki_sync={}", level.to_lowercase()))
}

/// One JSON object a line on stdout, as CloudWatch wants it. A second call does nothing.
pub fn init_lambda() {
    let _ = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_target(false)
        .with_env_filter(filter("info"))
        .try_init();
}

/// Plain lines on stderr: warnings, or with `verbose` each step. A second call does nothing.
pub fn init_terminal(verbose: bool) {
    let _ = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .with_env_filter(filter(if verbose { "debug" } else { "warn" }))
        .try_init();
}
