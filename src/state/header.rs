//! What the stored files of state and products have in common: one header line of JSON, then a body, and in the header a
//! checksum over both.

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Digits of a checksum.
pub(crate) const CHECKSUM_DIGITS: usize = 32;

/// The header line without its line feed, and the body.
pub(crate) fn split(file: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = file.iter().position(|byte| *byte == b'\n')?;
    Some((file.get(..end)?, file.get(end + 1..)?))
}

/// XXH3, 128 bits, of the body's pieces; `head` is what it covers of the header.
pub(crate) fn checksum<'a>(head: &str, body: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut sum = Xxh3::with_seed(xxh3_64(head.as_bytes()));
    body.into_iter().for_each(|piece| sum.update(piece));
    format!("{:032x}", sum.digest128())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_covers_header_and_body_however_the_body_is_cut() {
        let whole = checksum("head", [&b"body"[..]]);
        assert_eq!(whole.len(), CHECKSUM_DIGITS);
        assert_eq!(checksum("head", [&b"bo"[..], &b"dy"[..]]), whole);
        assert_ne!(checksum("heat", [&b"body"[..]]), whole);
        assert_ne!(checksum("head", [&b"bode"[..]]), whole);
    }

    #[test]
    fn a_header_ends_at_the_first_line_feed() {
        assert_eq!(split(b"{}\na\nb"), Some((&b"{}"[..], &b"a\nb"[..])));
        assert_eq!(split(b"{}"), None);
    }
}
