//! Takes secrets out of texts that servers send, before a message, a log line or the quarantine repeats them.

use std::borrow::Cow;

use bytes::Bytes;
use secrecy::{ExposeSecret, SecretString};

use crate::testing::Mutant;

/// Longest piece of a server's text in a message, in characters.
const EXCERPT_CHARS: usize = 160;
/// A shorter secret is a word that a text may hold by chance.
const SHORTEST_SECRET_BYTES: usize = 4;

/// What no text may repeat: the credentials of a side, and the token of one call.
#[derive(Clone, Copy)]
pub(super) struct Secrets<'a> {
    pub credentials: &'a [SecretString],
    pub token: Option<&'a SecretString>,
}

impl<'a> Secrets<'a> {
    fn list(self) -> Vec<&'a SecretString> {
        if Mutant::RedactNothing.is_active() {
            return Vec::new();
        }
        self.credentials.iter().chain(self.token).collect()
    }

    /// The body itself if it repeats no secret: a long one is not copied.
    pub(super) fn redacted_body(self, body: &Bytes) -> Bytes {
        let secrets = self.list();
        match String::from_utf8_lossy(body) {
            Cow::Borrowed(text) if !secrets.iter().any(|secret| text.contains(secret.expose_secret())) => {
                body.clone()
            }
            text => redact(&text, &secrets).into(),
        }
    }

    pub(super) fn excerpt(self, text: &str) -> String {
        excerpt(text, &self.list())
    }
}

/// The text without these secrets. The longest goes first, since one may be a part of another.
pub(super) fn redact(text: &str, secrets: &[&SecretString]) -> String {
    let mut secrets: Vec<&str> = secrets
        .iter()
        .map(|secret| secret.expose_secret())
        .filter(|secret| secret.len() >= SHORTEST_SECRET_BYTES)
        .collect();
    secrets.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets.into_iter().fold(text.to_owned(), |text, secret| text.replace(secret, "…"))
}

/// A server's text for a message: one line, cut short, and without any secret that it may echo.
pub(crate) fn excerpt(text: &str, secrets: &[&SecretString]) -> String {
    let text = redact(text, secrets);
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut cut: String = line.chars().filter(|c| !c.is_control()).take(EXCERPT_CHARS).collect();
    if cut.len() < line.len() {
        cut.push('…');
    }
    cut
}

/// A secret's text, for a request's body or address.
pub(crate) fn exposed(secret: &SecretString) -> &str {
    secret.expose_secret()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_holds_another_is_taken_out_whole() {
        let (id, secret) = (SecretString::from("client"), SecretString::from("client-s3cr3t"));
        assert_eq!(redact("client client-s3cr3t", &[&id, &secret]), "… …");
    }

    #[test]
    fn an_excerpt_is_short_on_one_line_and_without_secrets() {
        let secret = SecretString::from("s3cr3t-value");
        let text = format!("<html>\n  bad\u{7}  s3cr3t-value {}</html>", "x".repeat(500));
        let cut = excerpt(&text, &[&secret]);
        assert!(cut.starts_with("<html> bad … xxx"), "{cut}");
        assert_eq!(cut.chars().count(), EXCERPT_CHARS + 1);
    }
}
