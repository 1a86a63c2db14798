//! Fuzzes `rules::packet_out`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ferroflow_fuzz::rules::packet_out(data));
