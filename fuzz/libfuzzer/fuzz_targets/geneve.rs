//! Fuzzes `frames::geneve`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ferroflow_fuzz::frames::geneve(data));
