//! Which hosts a pipeline that was found in the store may name.
//!
//! Credentials travel to the hosts of a pipeline, so whoever may write `pipelines/` could otherwise have them sent
//! anywhere. A local file, and what a variable puts over the file, are as trusted as the program itself.

use serde_json::Value;
use url::Url;

use super::Env;
use super::file::Document;
use crate::error::Diagnostic;
use crate::words::{Message, say};

const VARIABLE: &str = "OKKI_SYNC_HOSTS";
/// OKKI's and Qeasy's own.
const DEFAULT: &str = "api-sandbox.xiaoman.cn,api.qeasy.cloud";
/// Every key that names a host.
const KEYS: [(&str, &str); 4] =
    [("source", "base_url"), ("target", "base_url"), ("target", "url"), ("target", "read_url")];

/// Adds a finding for each key that names a place outside the list.
pub(super) fn check(document: &mut Document, env: &Env) {
    let allowed = env.get(VARIABLE).unwrap_or_else(|| DEFAULT.to_owned());
    for (table, key) in KEYS {
        if document.is_from_environment(table, key) {
            continue;
        }
        let found = document.get(table, key).and_then(Value::as_str).and_then(|url| Url::parse(url).ok());
        if let Some((message, help)) = found.and_then(|url| mistake(&url, &allowed)) {
            document.findings.push(Diagnostic::new(format!("{table}.{key}"), message, help));
        }
    }
}

fn mistake(url: &Url, allowed: &str) -> Option<(Message, Message)> {
    if !matches!(url.scheme(), "http" | "https") {
        return Some((
            say!("is not the URL of a host, and this pipeline comes from the store"),
            say!(
                "name a host of {variable}; only a local pipeline file may read local files",
                variable = VARIABLE
            ),
        ));
    }
    let host = url.host_str()?;
    let with_port = format!("{host}:{}", url.port_or_known_default()?);
    let is_allowed = allowed
        .split(',')
        .map(str::trim)
        .any(|one| one.eq_ignore_ascii_case(host) || one.eq_ignore_ascii_case(&with_port));
    (!is_allowed).then(|| {
        (
            say!("names the host {host}, which a pipeline of the store may not", host = with_port),
            say!("add it to {variable} (now {allowed}), or name one of these", variable = VARIABLE, allowed),
        )
    })
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use crate::config::{self, Env};

    fn mistakes(text: &str, env: &[(&str, &str)]) -> String {
        match config::parse_stored(text, "p.toml", &Env::of(env.iter().copied())) {
            Ok(_) => "no mistake".to_owned(),
            Err(mistakes) => mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
        }
    }

    fn http(lines: &str) -> String {
        format!("[target]\nkind = \"http\"\n{lines}\n")
    }

    #[test]
    fn every_key_that_names_a_host_is_checked_and_told_by_its_line() {
        let qeasy = "[source]\nbase_url = \"file:///proc/self/environ\"\n[target]\nkind = \"qeasy\"\nscheme_id = \"s\"\nbase_url = \"https://mine.example\"";
        assert_snapshot!(mistakes(qeasy, &[]), @r"
        p.toml:2 source.base_url: is not the URL of a host, and this pipeline comes from the store; name a host of OKKI_SYNC_HOSTS; only a local pipeline file may read local files
        p.toml:6 target.base_url: names the host mine.example:443, which a pipeline of the store may not; add it to OKKI_SYNC_HOSTS (now api-sandbox.xiaoman.cn,api.qeasy.cloud), or name one of these
        ");
        let urls = http("url = \"https://a.example/x\"\nread_url = \"http://localhost:9001/y\"");
        assert_snapshot!(mistakes(&urls, &[("OKKI_SYNC_HOSTS", "b.example")]), @r"
        p.toml:3 target.url: names the host a.example:443, which a pipeline of the store may not; add it to OKKI_SYNC_HOSTS (now b.example), or name one of these
        p.toml:4 target.read_url: names the host localhost:9001, which a pipeline of the store may not; add it to OKKI_SYNC_HOSTS (now b.example), or name one of these
        ");
    }

    #[test]
    fn a_host_is_listed_with_or_without_its_port() {
        let told = |url: &str, hosts: &str| {
            mistakes(&http(&format!("url = \"{url}\"")), &[("OKKI_SYNC_HOSTS", hosts)])
        };
        for (url, hosts) in [
            ("https://a.example/x", "A.example"),
            ("https://a.example:8443/x", "b.example , a.example"),
            ("https://a.example/x", "a.example:443"),
            ("http://[::1]:5/x", "[::1]:5"),
        ] {
            assert_eq!(told(url, hosts), "no mistake", "{url} {hosts}");
        }
        for (url, hosts) in [
            ("https://a.example:8443/x", "a.example:443"),
            ("https://x.a.example/", "a.example"),
            ("https://a.example.evil/", "a.example"),
            ("https://a.example@evil/", "a.example"),
            ("https://evil/a.example", "a.example"),
            ("https://127.1/", "localhost"),
        ] {
            assert_ne!(told(url, hosts), "no mistake", "{url} {hosts}");
        }
    }

    #[test]
    fn what_a_variable_puts_over_the_file_is_trusted() {
        let text = http("url = \"https://a.example/x\"\nread_url = \"https://b.example/y\"");
        assert_eq!(mistakes(&text, &[("TARGET_BASE_URL", "https://c.example")]), "no mistake");
    }
}
