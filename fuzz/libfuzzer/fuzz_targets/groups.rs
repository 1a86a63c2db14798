//! Fuzzes `bridges::groups`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ferroflow_fuzz::bridges::groups(data));
