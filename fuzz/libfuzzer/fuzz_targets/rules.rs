//! Fuzzes `rules::rules`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ferroflow_fuzz::rules::rules(data));
