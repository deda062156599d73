//! `Retry-After`: whatever it says, the wait is capped.
#![no_main]

use libfuzzer_sys::fuzz_target;
use okki_sync::testing::net::{RETRY_AFTER_CAP, retry_after};

fuzz_target!(|input: (u64, &str)| {
    let (now_ms, text) = input;
    if let Some(wait) = retry_after(text, now_ms) {
        assert!(wait <= RETRY_AFTER_CAP);
    }
});
