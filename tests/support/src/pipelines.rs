//! Pipeline files.

/// A pipeline to Qeasy: `shape`, and further lines for `[target]`.
pub fn qeasy(shape: &str, target: &str) -> String {
    pipeline(&format!("shape = \"{shape}\""), &format!("kind = \"qeasy\"\n{target}"))
}

/// A pipeline to the sandbox's plain HTTP target.
pub fn http(shape: &str, target: &str) -> String {
    pipeline(&format!("shape = \"{shape}\""), &http_target(target))
}

pub fn http_target(target: &str) -> String {
    format!(
        "kind = \"http\"\nurl = \"https://example.com/v1/productGroups/batchInsert\"\n\
         read_url = \"https://example.com/v1/productGroups\"\nauth = \"bearer\"\n{target}"
    )
}

pub fn pipeline(record: &str, target: &str) -> String {
    format!(
        "connection = \"it\"\n[source]\nmax_requests_per_second = 5.0\n[record]\n{record}\n[target]\n{target}\n"
    )
}
