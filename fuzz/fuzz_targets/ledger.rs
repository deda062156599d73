//! The row ledger: a slot as a whole, and a block by itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use okki_sync::testing::fuzz;

fuzz_target!(|bytes: &[u8]| {
    fuzz::ledger(bytes);
    if let Some((raw_bytes, packed)) = bytes.split_first_chunk::<4>() {
        fuzz::ledger_block(packed, u32::from_le_bytes(*raw_bytes));
    }
});
