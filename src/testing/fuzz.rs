//! Doors for the fuzz targets to what is private: readers of text that strangers write. Exists under `--cfg fuzzing` only.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use indexmap::IndexMap;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::net::Answer;

/// Every reading of an answer of either side.
pub fn envelopes(status: u16, body: &[u8]) {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let answer = Answer { status, headers: HeaderMap::new(), body: Bytes::copy_from_slice(body) };
    crate::okki::fuzz(&answer);
    crate::targets::fuzz(&answer, &IndexMap::from([("/code".to_owned(), Value::from(0))]));
    let _ = crate::net::server_message(body);
}

/// Whether a row that was read back holds another.
pub fn holds(theirs: &Value, ours: &RawValue) -> bool {
    crate::targets::contains(theirs, ours.get().as_bytes())
}
