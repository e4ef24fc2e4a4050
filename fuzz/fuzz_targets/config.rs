//! `boki.toml`.
#![no_main]

use boki_server::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Config::from_text("boki.toml", text, []) {
        Ok(config) => {
            let shown = config.to_toml().expect("a configuration can be shown");
            Config::from_text("shown", &shown, []).expect("what is shown can be read");
        }
        Err(error) => {
            // What a user sees.
            assert!(!error.to_string().is_empty() && error.code().starts_with("BK"));
        }
    }
});
