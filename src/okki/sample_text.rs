//! Rows of OKKI out of a text that somebody saved: whole answers, lists of rows, or a row on each line. Pure.
//!
//! | what the text holds, once or several times | what it is |
//! |---|---|
//! | `{"code":200,"data":[…]}` | an answer with groups |
//! | `{"code":200,"data":{"count":2,"list":[…]}}` | a page of products |
//! | `{"productGroups":[…]}` | groups that bring their products |
//! | `[…]` | a list of any of these, or of rows |
//! | `{"product_id":…}`, `{"id":…}` | a product, a group |

use serde_json::Value;
use serde_json::value::RawValue;

use super::sample::Sample;
use crate::catalogue::short;
use crate::words::{Message, say};

/// Keys of a product that no group has.
const PRODUCT_KEYS: [&str; 6] =
    ["product_id", "productId", "product_no", "group_id", "sku_id", "enable_flag"];

impl Sample {
    /// The rows in a text; the error says where it is none of OKKI's. `name` is the text's, for messages.
    pub(crate) fn from_text(text: &str, name: &str) -> Result<Self, Message> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut sample = Self::default();
        let mut values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
        loop {
            let begins_at = values.byte_offset();
            let value = match values.next() {
                None => break,
                Some(Ok(value)) => value,
                Some(Err(error)) => {
                    let (line, column) = (error.line(), error.column());
                    let what = error.to_string();
                    let what = what.split(" at line ").next().unwrap_or_default();
                    return Err(say!("{name}:{line}:{column} is not JSON: {what}", name, line, column, what));
                }
            };
            let place = || {
                let before = text.get(..begins_at).unwrap_or_default();
                let blank = text
                    .get(begins_at..)
                    .map_or("", |rest| rest.split(|c: char| !c.is_whitespace()).next().unwrap_or(""));
                format!("{name}:{}", (before.matches('\n').count() + blank.matches('\n').count()) + 1)
            };
            sample.add(value, None).map_err(|why| say!("{place}: {why}", place = place(), why))?;
        }
        if sample.groups.is_empty() && sample.products.is_empty() {
            return Err(say!("{name} holds no row of OKKI", name));
        }
        Ok(sample)
    }

    /// `of_page`: whether the rows of this list are products, where they do not say so themselves.
    fn add(&mut self, raw: &RawValue, of_page: Option<bool>) -> Result<(), Message> {
        let text = raw.get();
        if text.starts_with('[') {
            let list: Vec<&RawValue> = serde_json::from_str(text).map_err(|error| error.to_string())?;
            return list.into_iter().try_for_each(|inner| self.add(inner, of_page));
        }
        let Ok(fields) = serde_json::from_str::<indexmap::IndexMap<String, &RawValue>>(text) else {
            return Err(say!(
                "{text} is neither an answer nor a row; expected an answer of OKKI, a row, or a list of them",
                text = short(text)
            ));
        };
        if of_page.is_none() {
            if let Some(groups) = fields.get("productGroups") {
                return self.add(groups, Some(false));
            }
            if let Some(data) = fields.get("data") {
                refuse_failure(&fields)?;
                return self.add_data(data);
            }
            if let Some(list) = fields.get("list") {
                return self.add(list, Some(true));
            }
            if fields.contains_key("code") && !fields.contains_key("id") {
                refuse_failure(&fields)?;
                return Err(say!("an answer without data"));
            }
        }
        let is_product = PRODUCT_KEYS.iter().any(|key| fields.contains_key(*key));
        let rows = if is_product || of_page == Some(true) { &mut self.products } else { &mut self.groups };
        rows.push(text.to_owned());
        Ok(())
    }

    /// What an answer holds: a list of groups, or a page of products.
    fn add_data(&mut self, data: &RawValue) -> Result<(), Message> {
        if data.get().starts_with('[') {
            return self.add(data, Some(false));
        }
        let fields: indexmap::IndexMap<String, &RawValue> =
            serde_json::from_str(data.get()).map_err(|_| say!("its data is neither a list nor a page"))?;
        let is_page = fields.contains_key("count") || fields.contains_key("totalItem");
        let list = fields.get("list").ok_or(say!("its data has no list"))?;
        self.add(list, Some(is_page))
    }
}

/// An answer that says it failed has no rows.
fn refuse_failure(fields: &indexmap::IndexMap<String, &RawValue>) -> Result<(), Message> {
    let code = fields.get("code").and_then(|code| serde_json::from_str::<Value>(code.get()).ok());
    let code = code.map(|code| code.as_str().map_or_else(|| code.to_string(), str::to_owned));
    match code.as_deref() {
        None | Some("200" | "0" | "null") => Ok(()),
        Some(code) => Err(say!("an answer that failed, with code {code}", code = short(code))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn counts(text: &str) -> (usize, usize) {
        let sample = Sample::from_text(text, "f").unwrap();
        (sample.groups.len(), sample.products.len())
    }

    #[test]
    fn rows_are_found_in_every_form_in_which_people_save_them() {
        let groups = r#"{"code":200,"message":"ok","data":[{"id":1,"name":"a"},{"id":2,"name":"b"}]}"#;
        let page = r#"{"code":"0","data":{"count":9,"list":[{"product_id":7,"name":"x","group_id":1},{}]}}"#;
        assert_eq!(counts(groups), (2, 0));
        assert_eq!(counts(page), (0, 2));
        assert_eq!(counts(&format!("[{groups},{page}]")), (2, 2));
        assert_eq!(counts(&format!("{groups}\n{page}\n\n{page}\n")), (2, 4));
        assert_eq!(counts(r#"[{"id":1,"name":"a"},{"product_id":7,"group_id":1}]"#), (1, 1));
        assert_eq!(counts("{\"id\":1}\n{\"productId\":7}\n"), (1, 1));
        assert_eq!(counts(r#"{"productGroups":[{"groupId":"1","products":[{"productId":"2"}]}]}"#), (1, 0));
        assert_eq!(counts(r#"{"data":{"list":[{"id":1}]}}"#), (1, 0), "groups in a wrapper of their own");
    }

    #[test]
    fn a_text_that_is_none_of_okki_s_is_refused_with_its_place() {
        for (text, expected) in [
            ("", "f holds no row of OKKI"),
            ("[]", "f holds no row of OKKI"),
            ("{\"id\":1}\n{\"id\":", "f:2:6 is not JSON: EOF while parsing a value"),
            (
                "{\"id\":1}\n\n[7]",
                "f:3: \"7\" is neither an answer nor a row; expected an answer of OKKI, a row, or a list of them",
            ),
            (r#"{"code":401,"data":[]}"#, "f:1: an answer that failed, with code \"401\""),
            (r#"{"code":200}"#, "f:1: an answer without data"),
            (r#"{"data":{"count":1}}"#, "f:1: its data has no list"),
        ] {
            assert_eq!(Sample::from_text(text, "f").unwrap_err(), expected, "{text}");
        }
    }
}
