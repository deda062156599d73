//! The ids that somebody may have meant.

/// The ids that look most like this one, at most so many, the nearest first.
pub(crate) fn nearest_ids<'a>(id: &str, known: impl Iterator<Item = &'a str>, most: usize) -> Vec<&'a str> {
    let mut near: Vec<(usize, &str)> = Vec::new();
    for other in known {
        // Ids of very different lengths are not each other's typing errors, and need no comparison.
        let distance =
            if other.len().abs_diff(id.len()) > 3 { usize::MAX } else { strsim::osa_distance(id, other) };
        near.push((distance, other));
        if near.len() > 64 * most {
            keep_nearest(&mut near, most);
        }
    }
    keep_nearest(&mut near, most);
    near.into_iter().map(|(_, id)| id).collect()
}

fn keep_nearest(near: &mut Vec<(usize, &str)>, most: usize) {
    near.sort_unstable();
    near.dedup();
    near.truncate(most);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn the_nearest_ids_come_first_and_each_once() {
        let known = ["37004000100", "5203320130", "37004000107", "37004000100", "9"];
        assert_eq!(nearest_ids("37004000101", known.into_iter(), 2), ["37004000100", "37004000107"]);
        assert_eq!(nearest_ids("x", [].into_iter(), 2), Vec::<&str>::new());
    }

    #[test]
    fn the_nearest_ids_come_first_whatever_the_order() {
        let known = ["37004000100", "37004000107", "37004000114", "5203320130", "1"];
        assert_eq!(nearest_ids("37004000108", known.into_iter(), 3)[0], "37004000100");
        assert_eq!(nearest_ids("37004000711", known.into_iter(), 3).len(), 3);
    }
}
