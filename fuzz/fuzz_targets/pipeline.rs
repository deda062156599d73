//! Pipeline files, as TOML and as JSON: mistakes are one line each, and a pipeline that loads has a schema-true JSON form.
#![no_main]

use libfuzzer_sys::fuzz_target;
use okki_sync::testing::config::{self, Env};

fuzz_target!(|text: &str| {
    let env = Env::of([("QEASY_SCHEME_ID", "x")]);
    for name in ["p.toml", "p.json"] {
        match config::parse(text, name, &env) {
            Ok(config) => {
                let json = serde_json::to_string(&config.pipeline).unwrap();
                assert!(config::parse(&json, "p.json", &env).is_ok(), "{json}");
            }
            Err(mistakes) => {
                assert!(!mistakes.is_empty());
                for mistake in mistakes {
                    assert!(!mistake.to_string().contains('\n'), "{mistake}");
                }
            }
        }
    }
});
