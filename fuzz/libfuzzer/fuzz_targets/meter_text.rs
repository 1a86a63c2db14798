//! Fuzzes `texts::meter`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ferroflow_fuzz::texts::meter(data));
