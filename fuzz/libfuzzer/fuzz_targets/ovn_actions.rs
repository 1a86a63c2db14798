//! Fuzzes `texts::ovn_actions`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ferroflow_fuzz::texts::ovn_actions(data));
