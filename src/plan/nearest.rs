//! The ids that somebody may have meant.

/// The ids that look most like this one, the nearest first.
pub(crate) fn nearest_ids<'a>(id: &str, known: impl Iterator<Item = &'a str>, most: usize) -> Vec<String> {
    let mut nearest: Vec<(f64, &str)> = Vec::new();
    for candidate in known {
        let alike = strsim::jaro_winkler(id, candidate);
        let at = nearest.partition_point(|(other, _)| *other >= alike);
        if at >= most || nearest.iter().any(|(_, other)| *other == candidate) {
            continue;
        }
        nearest.insert(at, (alike, candidate));
        nearest.truncate(most);
    }
    nearest.into_iter().map(|(_, id)| id.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_ids_come_first_and_each_once() {
        let known = ["37004000100", "5203320130", "37004000107", "37004000100", "9"];
        assert_eq!(nearest_ids("37004000101", known.into_iter(), 2), ["37004000100", "37004000107"]);
        assert_eq!(nearest_ids("x", [].into_iter(), 2), Vec::<String>::new());
    }
}
