//! Fuzzes `messages::nb_name`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ferroflow_fuzz::messages::nb_name(data));
