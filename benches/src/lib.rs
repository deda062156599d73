//! What the benchmark's programs share.

pub mod catalogue;

/// The value after `--name` on the command line.
pub fn option(name: &str) -> Option<String> {
    let mut args = std::env::args().skip_while(|arg| arg.strip_prefix("--") != Some(name));
    args.next().and_then(|_| args.next())
}

/// The same as a number.
pub fn number(name: &str, default: usize) -> usize {
    option(name).and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Pages of the product list, rows per POST, and calls under way at a time, for every contestant.
pub const PAGE_SIZE: usize = 100;
pub const ROWS_PER_POST: usize = 500;
pub const CONCURRENCY: usize = 8;

/// The sink's address on the server.
pub const STORE: &str = "/v2/open-api/business/bench/store";

/// The length that an HTTP head announces for its body.
pub fn content_length(head: &[u8]) -> usize {
    head.split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let (name, value) = line.split_at(line.iter().position(|byte| *byte == b':')?);
            name.eq_ignore_ascii_case(b"content-length").then_some(value)
        })
        .filter_map(|value| std::str::from_utf8(&value[1..]).ok()?.trim().parse().ok())
        .next()
        .unwrap_or(0)
}
