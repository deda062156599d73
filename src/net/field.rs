//! One field of an answer, whatever its type. Lists and objects are skipped and never built: an answer of a few kilobytes
//! on the wire may hold millions of values.

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A field as it came.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) enum Field {
    #[default]
    Absent,
    Null,
    Bool(bool),
    /// An integer that fits.
    Integer(i64),
    Text(String),
    /// A list of this many values.
    List(u64),
    /// An object, or any other number.
    Other,
}

impl Field {
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// An integer, perhaps as text.
    pub(crate) fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            Self::Text(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    pub(crate) fn is_absent(&self) -> bool {
        *self == Self::Absent
    }
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldVisitor)
    }
}

struct FieldVisitor;

impl<'de> Visitor<'de> for FieldVisitor {
    type Value = Field;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Field, E> {
        Ok(Field::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Field, E> {
        Ok(Field::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Field, E> {
        Ok(Field::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Field, E> {
        Ok(i64::try_from(value).map_or(Field::Other, Field::Integer))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Field, E> {
        Ok(Field::Other)
    }

    fn visit_str<E>(self, text: &str) -> Result<Field, E> {
        Ok(Field::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Field, A::Error> {
        let mut count = 0;
        while list.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(Field::List(count))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Field, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Field::Other)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_field_of_any_type_is_read_and_nothing_below_it_is_built() {
        for (json, expected) in [
            ("null", Field::Null),
            ("true", Field::Bool(true)),
            ("-7", Field::Integer(-7)),
            ("18446744073709551615", Field::Other),
            ("7.0", Field::Other),
            (r#""7""#, Field::Text("7".to_owned())),
            ("[]", Field::List(0)),
            (r#"[0,[1,2],{"a":3}]"#, Field::List(3)),
            (r#"{"a":[1]}"#, Field::Other),
        ] {
            assert!(serde_json::from_str::<Field>(json).unwrap() == expected, "{json}");
        }
        let deep = format!("[{}{}]", "[".repeat(100_000), "]".repeat(100_000));
        assert!(serde_json::from_str::<Field>(&deep).unwrap() == Field::List(1));
        assert!(serde_json::from_str::<Field>("[0,").is_err());
    }
}
