//! Takes what does not fit the schema out of a pipeline's value, so that the rest can still be looked at.

use serde_json::Value;

/// Takes the offenders out, so that the rest can still be looked at.
pub(super) fn prune(value: &mut Value, offenders: &[Vec<String>]) {
    for keys in offenders {
        let Some((last, tables)) = keys.split_last() else { continue };
        let table = tables.iter().try_fold(&mut *value, |value, key| inside(value, key));
        if let Some(Value::Object(map)) = table {
            // Without one of its elements a list would have others in their places.
            let list = last.split_once('[').map(|(name, _)| name).filter(|name| map.contains_key(*name));
            map.shift_remove(if map.contains_key(last) { last.as_str() } else { list.unwrap_or(last) });
        }
    }
}

/// The value at a key, which may name the place in a list: `values[0]`.
fn inside<'v>(value: &'v mut Value, key: &str) -> Option<&'v mut Value> {
    if value.get(key).is_some() {
        return value.get_mut(key);
    }
    let (name, at) = key.strip_suffix(']')?.split_once('[')?;
    value.get_mut(name)?.get_mut(at.parse::<usize>().ok()?)
}
