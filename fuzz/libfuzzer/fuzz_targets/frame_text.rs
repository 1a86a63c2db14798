//! Fuzzes `files::frame_text`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ferroflow_fuzz::files::frame_text(data));
