//! Fuzzes `frames::nd_options`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ferroflow_fuzz::frames::nd_options(data));
