//! Fuzzes `frames::tunnel`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ferroflow_fuzz::frames::tunnel(data));
