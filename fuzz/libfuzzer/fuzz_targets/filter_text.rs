//! Fuzzes `texts::filter`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ferroflow_fuzz::texts::filter(data));
