//! Files of changes, and the comparison of two rows.
#![no_main]

use libfuzzer_sys::fuzz_target;
use okki_sync::testing::fuzz;

fuzz_target!(|bytes: &[u8]| {
    fuzz::changes(bytes);
    if let Some((old, new)) = std::str::from_utf8(bytes).ok().and_then(|text| text.split_once('\n')) {
        fuzz::rows(Some(old), Some(new));
    }
});
