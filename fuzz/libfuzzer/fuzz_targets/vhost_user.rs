//! Fuzzes `frames::vhost_user`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ferroflow_fuzz::frames::vhost_user(data));
