//! Entry points for the fuzz targets: readers of text that strangers write.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use indexmap::IndexMap;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::config::Env;
use crate::net::Answer;

/// Reads a body as every answer of either side.
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

/// Reads a pipeline file. Mistakes are one line each; what loads can be written as JSON and loads again.
pub fn pipeline(text: &str, name: &str) {
    let env = Env::of([("QEASY_SCHEME_ID", "x")]);
    match crate::config::read(text, name, &env) {
        Ok((pipeline, _)) => {
            let json = serde_json::to_string(&pipeline).unwrap_or_default();
            assert!(crate::config::parse(&json, "p.json", &env).is_ok(), "{json}");
        }
        Err(mistakes) => {
            assert!(!mistakes.is_empty());
            assert!(!mistakes.iter().any(|mistake| mistake.to_string().contains('\n')), "{mistakes:?}");
        }
    }
}
