//! Lambda events: understood, or refused in one line.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(event) = serde_json::from_slice(bytes) else { return };
    if let Err(error) = okki_sync::handler::parse(&event) {
        assert!(!error.to_string().contains('\n'), "{error}");
    }
});
