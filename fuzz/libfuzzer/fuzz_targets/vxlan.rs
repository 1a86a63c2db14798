//! Fuzzes `frames::vxlan`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ferroflow_fuzz::frames::vxlan(data));
