//! Answers of OKKI and of the target, in every reading: the first two bytes choose the HTTP status.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (status, body) = match data {
        [a, b, body @ ..] => (u16::from_be_bytes([*a, *b]) % 1000, body),
        _ => (200, data),
    };
    okki_sync::testing::fuzz::envelopes(status, body);
    okki_sync::testing::fuzz::envelopes(200, body);
});
