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

/// Reads a slot of the row ledger. What can be read is the same when it is written again.
pub fn ledger(file: &[u8]) {
    let file = Bytes::copy_from_slice(file);
    let _ = crate::ledger::Head::read(&file, "sandbox");
    let Ok(segment) = crate::ledger::Segment::from_bytes(&file, "sandbox") else { return };
    segment.unpack();
    let again = Bytes::from(segment.to_pieces("sandbox").concat());
    assert!(crate::ledger::Segment::from_bytes(&again, "sandbox").is_ok());
    let merged = crate::ledger::merge(vec![segment.clone(), segment], true);
    assert!(
        crate::ledger::Segment::from_bytes(&merged.to_pieces("sandbox").concat().into(), "sandbox").is_ok()
    );
}

/// Unpacks a block of the row ledger.
pub fn ledger_block(packed: &[u8], raw_bytes: u32) {
    let _ = crate::ledger::rows_of(packed, raw_bytes.min(1 << 20), |_, _| {});
}

/// Reads a file of changes, and compares the rows that it shows.
pub fn changes(file: &[u8]) {
    let mut before: Option<String> = None;
    let _ = crate::changes::read(file, |line| {
        let line = serde_json::from_str::<crate::changes::ChangeLine>(line);
        let row = line.ok().and_then(|line| line.was).map(|was| was.text().to_owned());
        rows(before.as_deref(), row.as_deref());
        before = row;
    });
}

/// Compares two rows, field by field, both ways.
pub fn rows(old: Option<&str>, new: Option<&str>) {
    use crate::plan::diff::{Digits, diff};
    let there = diff(old, new, Digits::Count);
    assert_eq!(there.is_empty(), diff(new, old, Digits::Count).is_empty());
    assert!(diff(old, old, Digits::Count).is_empty());
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
