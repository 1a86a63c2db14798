//! Fuzzes `files::journal`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ferroflow_fuzz::files::journal(data));
