//! Fuzzes `bridges::lacp`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ferroflow_fuzz::bridges::lacp(data));
