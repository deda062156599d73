//! Which fields of a row differ, and from what to what.
//!
//! Rows are compared as text, value by value, so that numbers keep their digits. The elements of a list are told apart by
//! their ids (the field `id`, else the first field), so that an item that moved is not a change of all that follow:
//!
//! | old | new | change |
//! |---|---|---|
//! | `{"cost":2999.10}` | `{"cost":3099.00}` | `cost`: 2999.10 → 3099.00 |
//! | `{"items":[{"id":"1","cost":1}]}` | `{"items":[{"id":"2","cost":5},{"id":"1","cost":2}]}` | `items[2]`: new; `items[1].cost`: 1 → 2 |
//! | `{"items":[{"id":"1"},{"id":"2"}]}` | `{"items":[{"id":"2"},{"id":"1"}]}` | `items[]`: the ids in another order |

use indexmap::IndexMap;
use serde_json::value::RawValue;

use crate::changes::{FieldChange, Json};
use crate::words::written;

/// Values that are nested deeper are compared as a whole.
const DEPTH: usize = 32;

/// Fields of a row that are told; a group may have 50,000 items.
const MOST_FIELDS: usize = 500;

/// When two numbers are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Digits {
    /// If they are written alike: both rows are ours.
    Count,
    /// If their values are equal: the target writes numbers its own way.
    DoNotCount,
}

type Fields<'a> = IndexMap<String, &'a RawValue>;

fn fields(row: Option<&str>) -> Fields<'_> {
    row.and_then(|row| serde_json::from_str(row).ok()).unwrap_or_default()
}

fn elements(list: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(list.get()).ok()
}

/// The fields in which two rows differ. `None` stands for a row that is not there.
pub(crate) fn diff(old: Option<&str>, new: Option<&str>, digits: Digits) -> Vec<FieldChange> {
    let mut found = Differences { digits, changes: Vec::new() };
    found.objects("", &fields(old), &fields(new), 0);
    found.changes
}

/// The same for a target that has fields of its own: those do not count.
pub(crate) fn diff_with_target(theirs: &str, ours: &str) -> Vec<FieldChange> {
    let mut found = Differences { digits: Digits::DoNotCount, changes: Vec::new() };
    let (mut theirs, ours) = (fields(Some(theirs)), fields(Some(ours)));
    theirs.retain(|key, _| ours.contains_key(key));
    found.objects("", &theirs, &ours, 0);
    found.changes
}

/// All fields of a row whose former content is not known.
pub(crate) fn over_unknown(new: Option<&str>) -> Vec<FieldChange> {
    let mut changes = diff(None, new, Digits::Count);
    changes.iter_mut().for_each(|change| change.old_unknown = true);
    changes
}

struct Differences {
    digits: Digits,
    changes: Vec<FieldChange>,
}

impl Differences {
    fn push(&mut self, path: &str, old: Option<&RawValue>, new: Option<&RawValue>) {
        let (old, new) = (old.map(Json::from), new.map(Json::from));
        self.changes.push(FieldChange { path: path.to_owned(), old, new, old_unknown: false });
    }

    fn objects(&mut self, path: &str, old: &Fields<'_>, new: &Fields<'_>, depth: usize) {
        for (key, new) in new {
            let path = field_path(path, key);
            match old.get(key) {
                Some(old) => self.values(&path, old, new, depth),
                None => self.push(&path, None, Some(new)),
            }
        }
        for (key, old) in old.iter().filter(|(key, _)| !new.contains_key(*key)) {
            self.push(&field_path(path, key), Some(old), None);
        }
    }

    fn values(&mut self, path: &str, old: &RawValue, new: &RawValue, depth: usize) {
        if old.get() == new.get() {
            return;
        }
        if depth < DEPTH {
            match (old.get().as_bytes().first(), new.get().as_bytes().first()) {
                (Some(b'{'), Some(b'{')) => {
                    if let (Ok(old), Ok(new)) =
                        (serde_json::from_str(old.get()), serde_json::from_str(new.get()))
                    {
                        return self.objects(path, &old, &new, depth + 1);
                    }
                }
                (Some(b'['), Some(b'[')) => return self.lists(path, old, new, depth + 1),
                _ => {}
            }
        }
        if !self.same(old.get(), new.get()) {
            self.push(path, Some(old), Some(new));
        }
    }

    fn lists(&mut self, path: &str, old: &RawValue, new: &RawValue, depth: usize) {
        let (Some(old_elements), Some(new_elements)) = (elements(old), elements(new)) else { return };
        let (Some(old_ids), Some(new_ids)) = (by_id(&old_elements), by_id(&new_elements)) else {
            return self.by_place(path, &old_elements, &new_elements, depth);
        };
        let before = self.changes.len();
        for (id, new) in &new_ids {
            let path = format!("{path}[{}]", in_brackets(id));
            match old_ids.get(id) {
                Some(old) => self.values(&path, old, new, depth),
                None => self.push(&path, None, Some(new)),
            }
        }
        for (id, old) in old_ids.iter().filter(|(id, _)| !new_ids.contains_key(*id)) {
            self.push(&format!("{path}[{}]", in_brackets(id)), Some(old), None);
        }
        if self.changes.len() == before && !old_ids.keys().eq(new_ids.keys()) {
            self.changes.push(FieldChange {
                path: format!("{path}[]"),
                old: ids_of(&old_ids),
                new: ids_of(&new_ids),
                old_unknown: false,
            });
        }
    }

    fn by_place(&mut self, path: &str, old: &[&RawValue], new: &[&RawValue], depth: usize) {
        for place in 0..old.len().max(new.len()) {
            let path = format!("{path}[{place}]");
            match (old.get(place), new.get(place)) {
                (Some(old), Some(new)) => self.values(&path, old, new, depth),
                (old, new) => self.push(&path, old.copied(), new.copied()),
            }
        }
    }

    /// Whether two texts that differ mean the same value.
    fn same(&self, old: &str, new: &str) -> bool {
        if let (Ok(old), Ok(new)) = (serde_json::from_str::<String>(old), serde_json::from_str::<String>(new))
        {
            return old == new;
        }
        if self.digits == Digits::Count {
            return false;
        }
        let whole = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        let numbers = (old.parse::<f64>(), new.parse::<f64>());
        matches!(numbers, (Ok(old_number), Ok(new_number)) if old_number == new_number && !(whole(old) && whole(new)))
    }
}

/// `path.key`, or `path["a.key"]` where the key would be read as a path.
fn field_path(path: &str, key: &str) -> String {
    if key.is_empty() || key.contains(['.', '[', ']', '"']) {
        return format!("{path}[{}]", serde_json::Value::from(key));
    }
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn in_brackets(id: &str) -> String {
    if id.is_empty() || id.contains(['[', ']', '"']) {
        serde_json::Value::from(id).to_string()
    } else {
        id.to_owned()
    }
}

/// The elements of a list by their ids; `None` if not all of them have one, or two have the same.
fn by_id<'a>(elements: &[&'a RawValue]) -> Option<IndexMap<String, &'a RawValue>> {
    let id = |element: &'a RawValue| -> Option<String> {
        let fields: Fields<'a> = serde_json::from_str(element.get()).ok()?;
        let id = fields.get("id").or_else(|| fields.first().map(|(_, value)| value))?.get();
        match id.as_bytes().first()? {
            b'"' => serde_json::from_str(id).ok(),
            b'{' | b'[' | b'n' | b't' | b'f' => None,
            _ => Some(id.to_owned()),
        }
    };
    let mut found = IndexMap::with_capacity(elements.len());
    for element in elements {
        if found.insert(id(element)?, *element).is_some() {
            return None;
        }
    }
    Some(found)
}

fn ids_of(elements: &IndexMap<String, &RawValue>) -> Option<Json> {
    let ids: Vec<&String> = elements.keys().collect();
    Json::parse(&serde_json::to_string(&ids).ok()?)
}

/// At most [`MOST_FIELDS`] of them; the last one then says how many more there are.
pub(crate) fn bounded(mut changes: Vec<FieldChange>) -> Vec<FieldChange> {
    let more = changes.len().saturating_sub(MOST_FIELDS);
    if more > 0 {
        changes.truncate(MOST_FIELDS);
        changes.push(FieldChange {
            path: written!("… and {more} more", more),
            old: None,
            new: None,
            old_unknown: false,
        });
    }
    changes
}

/// The element of this id in one of the row's lists.
pub(crate) fn element<'r>(row: &'r str, id: &str) -> Option<&'r str> {
    let fields = fields(Some(row));
    let lists = fields.values().filter(|value| value.get().starts_with('['));
    lists.filter_map(|list| by_id(&elements(list)?)?.get(id).map(|element| element.get())).next()
}

/// The part of a row's changes that is about one element of a list: `items[50001].cost` for `50001`.
pub(crate) fn of_element(changes: &[FieldChange], id: &str) -> Vec<FieldChange> {
    let place = format!("[{}]", in_brackets(id));
    changes.iter().filter(|change| change.path.contains(&place)).cloned().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn told(changes: &[FieldChange]) -> Vec<String> {
        let text = |value: &Option<Json>| {
            value.as_ref().map_or("nothing".to_owned(), |value| value.text().to_owned())
        };
        changes
            .iter()
            .map(|change| format!("{}: {} → {}", change.path, text(&change.old), text(&change.new)))
            .collect()
    }

    #[test]
    fn each_field_that_differs_is_told_from_old_to_new() {
        for (old, new, expected) in [
            (
                r#"{"id":"7","cost":2999.10}"#,
                r#"{"id":"7","cost":3099.00}"#,
                &["cost: 2999.10 → 3099.00"][..],
            ),
            (r#"{"cost":1.0}"#, r#"{"cost":1.00}"#, &["cost: 1.0 → 1.00"]),
            (r#"{"a":null}"#, r#"{"b":null}"#, &["b: nothing → null", "a: null → nothing"]),
            (r#"{"a":{"b":{"c":1}}}"#, r#"{"a":{"b":{"c":2}}}"#, &["a.b.c: 1 → 2"]),
            (r#"{"a.b":1}"#, r#"{"a.b":2}"#, &[r#"["a.b"]: 1 → 2"#]),
            (r#"{"a":"\u706f"}"#, r#"{"a":"灯"}"#, &[]),
            (r#"{"a":{"b":1}}"#, r#"{"a":[1]}"#, &[r#"a: {"b":1} → [1]"#]),
        ] {
            assert_eq!(told(&diff(Some(old), Some(new), Digits::Count)), expected, "{old} {new}");
        }
    }

    #[test]
    fn elements_of_a_list_are_told_apart_by_their_ids() {
        for (old, new, expected) in [
            (
                r#"[{"id":"1","cost":1},{"id":"2","cost":2}]"#,
                r#"[{"id":"3","cost":3},{"id":"2","cost":2},{"id":"1","cost":9}]"#,
                &[r#"items[3]: nothing → {"id":"3","cost":3}"#, "items[1].cost: 1 → 9"][..],
            ),
            (r#"[{"id":"1"},{"id":"2"}]"#, r#"[{"id":"2"}]"#, &[r#"items[1]: {"id":"1"} → nothing"#]),
            (
                r#"[{"id":"1"},{"id":"2"}]"#,
                r#"[{"id":"2"},{"id":"1"}]"#,
                &[r#"items[]: ["1","2"] → ["2","1"]"#],
            ),
            (r#"[{"sku":1,"c":1}]"#, r#"[{"sku":1,"c":2}]"#, &["items[1].c: 1 → 2"]),
            (
                r#"[{"id":"1","c":1},{"id":"1","c":2}]"#,
                r#"[{"id":"1","c":1},{"id":"1","c":3}]"#,
                &["items[1].c: 2 → 3"],
            ),
            (r#"["a","b"]"#, r#"["a","c","d"]"#, &[r#"items[1]: "b" → "c""#, r#"items[2]: nothing → "d""#]),
        ] {
            let row = |items: &str| format!(r#"{{"id":"7","items":{items}}}"#);
            let changes = diff(Some(&row(old)), Some(&row(new)), Digits::Count);
            assert_eq!(told(&changes), expected, "{old} {new}");
        }
    }

    #[test]
    fn of_too_many_changes_the_first_are_told_and_the_rest_is_counted() {
        let change =
            |at: usize| FieldChange { path: at.to_string(), old: None, new: None, old_unknown: false };
        let told = |count: usize| bounded((0..count).map(change).collect());
        assert_eq!(told(MOST_FIELDS), (0..MOST_FIELDS).map(change).collect::<Vec<_>>());
        let more = told(MOST_FIELDS + 3);
        assert_eq!(more.len(), MOST_FIELDS + 1);
        assert_eq!(more.last().map(|last| last.path.as_str()), Some("… and 3 more"));
    }

    #[test]
    fn a_target_may_write_numbers_its_own_way_and_have_fields_of_its_own() {
        let ours = r#"{"id":"7","cost":2999.10,"no":9007199254740993}"#;
        assert_eq!(diff_with_target(r#"{"id":"7","cost":2999.1,"no":9007199254740993,"own":1}"#, ours), []);
        let differs = diff_with_target(r#"{"id":"7","cost":2999.2,"no":9007199254740992}"#, ours);
        let paths: Vec<_> = differs.iter().map(|change| change.path.as_str()).collect();
        assert_eq!(paths, ["cost", "no"]);
    }

    #[test]
    fn what_is_not_known_is_not_called_nothing() {
        let changes = over_unknown(Some(r#"{"id":"7","cost":1}"#));
        assert!(
            changes.len() == 2 && changes.iter().all(|change| change.old_unknown && change.old.is_none())
        );
    }

    #[test]
    fn the_changes_of_one_item_are_those_below_its_id() {
        let change =
            |path: &str| FieldChange { path: path.to_owned(), old: None, new: None, old_unknown: false };
        let all = ["name", "items[1].cost", "items[11].cost", "items[1]"].map(change);
        assert_eq!(of_element(&all, "1").len(), 2);
    }
}
