//! Ids: strings inside, whatever the source sends, so that ids over 2^53 stay exact.

use std::cmp::Ordering;

use compact_str::CompactString;

/// The id of a row at the target.
pub(crate) type RecordId = CompactString;

/// Orders ids as people do: shorter numbers first, then by text.
pub(crate) fn id_order(a: &str, b: &str) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

/// A hash that is the same in every process.
pub(crate) fn id_hash(id: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(id.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_ordered_as_numbers_without_being_numbers() {
        let mut ids = vec!["10", "9", "001", "9007199254740993"];
        ids.sort_by(|a, b| id_order(a, b));
        assert_eq!(ids, ["9", "10", "001", "9007199254740993"]);
    }
}
