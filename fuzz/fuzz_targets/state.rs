//! State files: what is read comes back the same when it is written again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use okki_sync::testing::state::State;

fuzz_target!(|bytes: &[u8]| {
    if let Ok((state, target)) = State::with_target(bytes, "sandbox") {
        let text = state.to_text("sandbox", &target);
        assert_eq!(State::from_bytes(&text, "sandbox", &target).unwrap(), state);
    }
});
