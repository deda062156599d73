//! The fields of a target's answer that decide what became of a call. The rest is skipped and never built: a verdict costs
//! no more memory than its bytes.

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::net::Field;

/// What is known of a body, or of its `content` or `data`. Nothing, if that is no object.
#[derive(Default)]
pub(super) struct AnswerBody {
    pub code: Field,
    pub success: Field,
    pub message: Field,
    pub inserted: Field,
    pub updated: Field,
    pub failed: Field,
    pub access_token: Field,
    pub expires_in: Field,
    pub content: Option<Box<AnswerBody>>,
    pub data: Option<Box<AnswerBody>>,
}

impl AnswerBody {
    /// `None` if the body is not JSON.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }

    /// A count of rows: in `content` or `data`, or beside them.
    pub(super) fn count(&self, of: impl Fn(&Self) -> &Field) -> &Field {
        let inside = [&self.content, &self.data].into_iter().flatten().map(|inner| of(inner));
        inside.into_iter().find(|field| !field.is_absent()).unwrap_or_else(|| of(self))
    }
}

impl<'de> Deserialize<'de> for AnswerBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnswerVisitor)
    }
}

struct AnswerVisitor;

impl<'de> Visitor<'de> for AnswerVisitor {
    type Value = AnswerBody;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<AnswerBody, A::Error> {
        let mut body = AnswerBody::default();
        while let Some(key) = object.next_key::<String>()? {
            match key.as_str() {
                "code" => body.code = object.next_value()?,
                "success" => body.success = object.next_value()?,
                "message" => body.message = object.next_value()?,
                "inserted" => body.inserted = object.next_value()?,
                "updated" => body.updated = object.next_value()?,
                "failed" => body.failed = object.next_value()?,
                "access_token" => body.access_token = object.next_value()?,
                "expires_in" => body.expires_in = object.next_value()?,
                "content" => body.content = Some(object.next_value()?),
                "data" => body.data = Some(object.next_value()?),
                _ => {
                    object.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(body)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<AnswerBody, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(AnswerBody::default())
    }

    fn visit_unit<E: Error>(self) -> Result<AnswerBody, E> {
        Ok(AnswerBody::default())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<AnswerBody, E> {
        Ok(AnswerBody::default())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<AnswerBody, E> {
        Ok(AnswerBody::default())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<AnswerBody, E> {
        Ok(AnswerBody::default())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<AnswerBody, E> {
        Ok(AnswerBody::default())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<AnswerBody, E> {
        Ok(AnswerBody::default())
    }
}
