//! Pipeline files, as TOML and as JSON: mistakes are one line each, and a pipeline that loads has a JSON form that loads.
#![no_main]

use libfuzzer_sys::fuzz_target;
use okki_sync::testing::fuzz;

fuzz_target!(|text: &str| {
    fuzz::pipeline(text, "p.toml");
    fuzz::pipeline(text, "p.json");
});
