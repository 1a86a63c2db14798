//! Fuzzes `rules::tracked`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ferroflow_fuzz::rules::tracked(data));
