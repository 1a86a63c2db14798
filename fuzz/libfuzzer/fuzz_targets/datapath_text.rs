//! Fuzzes `rules::datapath_text`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ferroflow_fuzz::rules::datapath_text(data));
