//! Merges segments: newer rows hide older ones.

use super::segment::{Block, Segment, rows_of};
use super::{BLOCK_BYTES, Builder, place_hash};

/// A smaller block is repacked with others: the blocks of runs that changed one row would pack badly.
const SMALL_BYTES: u32 = BLOCK_BYTES as u32 / 2;

/// One segment of these, from the newest to the oldest. `is_oldest`: below them is nothing that a row which is gone
/// would have to hide.
pub(crate) fn merge(mut segments: Vec<Segment>, is_oldest: bool) -> Segment {
    segments.retain(|segment| !segment.is_empty());
    if segments.len() <= 1 {
        // All that a first sync sends: nothing hides it, and taking it over row by row would take as long as packing it.
        let mut only = segments.pop().unwrap_or_default();
        if is_oldest {
            only.places.retain(|place| place.block().is_some());
        }
        return only;
    }
    let mut merged = Builder::default();
    for (age, segment) in segments.iter().enumerate() {
        let newer = segments.get(..age).unwrap_or_default();
        let counts = |hash: u64| !newer.iter().any(|newer| newer.has(hash));
        // The rows of each block that count, by their hashes.
        let mut rows: Vec<Vec<u64>> = vec![Vec::new(); segment.blocks.len()];
        for place in segment.places.iter().filter(|place| counts(place.hash())) {
            match place.block() {
                Some(block) => rows.get_mut(block).into_iter().for_each(|rows| rows.push(place.hash())),
                None if is_oldest => {}
                None => merged.place(place.hash(), None),
            }
        }
        for (block, rows) in segment.blocks.iter().zip(rows) {
            if rows.is_empty() {
                continue;
            }
            if block.raw_bytes < SMALL_BYTES || rows.len() < block.rows as usize / 2 {
                repack(block, &rows, &mut merged);
            } else {
                let number = merged.take_block(block.clone());
                rows.into_iter().for_each(|hash| merged.place(hash, Some(number)));
            }
        }
    }
    merged.finish()
}

/// Rows in the order of their hashes, as the index has them.
fn repack(block: &Block, rows: &[u64], merged: &mut Builder) {
    // A block that cannot be unpacked was damaged in memory; its rows are not known any more.
    let _ = rows_of(&block.packed, block.raw_bytes, |id, content| {
        if rows.binary_search(&place_hash(id)).is_ok() {
            merged.add(id, content);
        }
    });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::state::Fingerprint;

    fn segment(rows: &[(&str, Option<&str>)]) -> Segment {
        let mut builder = Builder::default();
        for (id, content) in rows {
            match content {
                Some(content) => builder.add(id, content.as_bytes()),
                None => builder.forget(id),
            }
        }
        builder.finish()
    }

    fn find(segment: &Segment, id: &str, content: &str) -> bool {
        segment.find(id, Fingerprint::of(content.as_bytes())).is_some_and(|found| found == content)
    }

    fn again(segment: &Segment) -> Segment {
        let file = Bytes::from(segment.to_pieces("acme").concat());
        Segment::from_bytes(&file, "acme").unwrap()
    }

    #[test]
    fn newer_rows_hide_older_ones_and_rows_that_are_gone_hide_them_too() {
        let older = segment(&[("1", Some("one")), ("2", Some("two")), ("3", Some("three"))]);
        let newer = segment(&[("2", Some("zwei")), ("3", None)]);
        let merged = again(&merge(vec![newer, older], true));
        assert!(find(&merged, "1", "one") && find(&merged, "2", "zwei"));
        assert!(!find(&merged, "2", "two") && !find(&merged, "3", "three"));
        assert_eq!((merged.places.len(), merged.blocks.len()), (2, 1));
    }

    #[test]
    fn content_counts_only_with_the_fingerprint_that_was_acknowledged() {
        let rows = segment(&[("1", Some("one"))]);
        assert!(rows.find("1", Fingerprint::of(b"eins")).is_none());
        assert!(rows.find("2", Fingerprint::of(b"one")).is_none());
    }

    #[test]
    fn an_id_is_found_wherever_its_row_has_it_or_has_it_not() {
        let far = format!("{{\"name\":\"{}\",\"id\":\"5\"}}", "x".repeat(100));
        let rows = [
            ("1", r#"{"id":"1","name":"7"}"#),
            ("22", r#"{"id":"22"}"#),
            ("3", r#"{"name":"x","id":"3"}"#),
            ("4", "{}"),
            ("5", far.as_str()),
            ("灯", r#"{"id":"灯"}"#),
            ("", ""),
        ];
        let all: Vec<_> = rows.iter().map(|(id, content)| (*id, Some(*content))).collect();
        let segment = again(&segment(&all));
        for (id, content) in rows {
            assert!(find(&segment, id, content), "{id}");
        }
    }

    #[test]
    fn large_blocks_are_taken_over_and_those_of_which_little_counts_are_not() {
        let row = |id: usize| format!("{id} {}", "x".repeat(100));
        let ids: Vec<String> = (0..2_000).map(|id| id.to_string()).collect();
        let mut all = Builder::default();
        (0..2_000).for_each(|id| all.add(&ids[id], row(id).as_bytes()));
        let all = all.finish();
        assert!(all.blocks.len() >= 3);
        let one = segment(&[("7", Some("seven"))]);
        let merged = merge(vec![one, all.clone()], true);
        assert!(
            find(&merged, "7", "seven") && (0..2_000).all(|id| id == 7 || find(&merged, &ids[id], &row(id)))
        );
        assert!(merged.blocks.iter().any(|block| block.sum == all.blocks[0].sum));
        let mut most = Builder::default();
        (0..1_900).for_each(|id| most.add(&ids[id], b"new"));
        let merged = again(&merge(vec![most.finish(), all], true));
        assert_eq!(merged.blocks.iter().map(|block| block.rows).sum::<u32>(), 2_000);
        assert!((1_900..2_000).all(|id| find(&merged, &ids[id], &row(id))));
    }

    #[test]
    fn damage_is_noticed_wherever_it_is() {
        let file = segment(&[("1", Some("one")), ("2", Some("two"))]).to_pieces("acme").concat();
        for at in 0..file.len() {
            let mut broken = file.clone();
            broken[at] ^= 1;
            assert!(Segment::from_bytes(&Bytes::from(broken), "acme").is_err(), "{at}");
        }
        assert!(Segment::from_bytes(&Bytes::from(file[..file.len() - 1].to_vec()), "acme").is_err());
        assert!(Segment::from_bytes(&Bytes::from(file), "other").is_err());
    }

    #[test]
    fn a_block_never_unpacks_to_more_than_its_table_says_or_a_row_can_have() {
        let packed = zstd::bulk::compress(&vec![0; 128 << 20], 1).unwrap();
        assert!(packed.len() < 20_000);
        for raw_bytes in [0, 64 * 1024, 128 << 20, u32::MAX] {
            assert!(rows_of(&packed, raw_bytes, |_, _| {}).is_err(), "{raw_bytes}");
        }
    }

    #[test]
    fn rows_of_one_segment_stay_and_gone_ones_need_no_place() {
        let all = segment(&[("1", Some("one")), ("2", None)]);
        let [newer, oldest] =
            [false, true].map(|is_oldest| merge(vec![Segment::default(), all.clone()], is_oldest));
        assert_eq!((newer.places.len(), oldest.places.len()), (2, 1));
        assert!(find(&newer, "1", "one") && find(&again(&oldest), "1", "one"));
        assert!(merge(Vec::new(), true).is_empty());
    }

    proptest! {
        #[test]
        fn merged_segments_know_what_a_map_would(runs in prop::collection::vec(prop::collection::vec((0_u8..20, prop::option::of(0_u16..9)), 0..12), 1..6)) {
            let mut map: BTreeMap<String, Option<String>> = BTreeMap::new();
            let mut segments = Vec::new();
            for run in &runs {
                let mut builder = Builder::default();
                let mut last = BTreeMap::new();
                for (id, content) in run {
                    last.insert(id.to_string(), content.map(|content| format!("content {content}")));
                }
                for (id, content) in last {
                    match &content {
                        Some(content) => builder.add(&id, content.as_bytes()),
                        None => builder.forget(&id),
                    }
                    map.insert(id, content);
                }
                segments.insert(0, builder.finish());
            }
            let merged = again(&merge(segments, true));
            prop_assert_eq!(merged.places.len(), map.values().flatten().count());
            for (id, content) in map {
                if let Some(content) = content {
                    prop_assert!(find(&merged, &id, &content));
                }
            }
        }
    }
}
