//! Fuzzes `messages::nb_transaction`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ferroflow_fuzz::messages::nb_transaction(data));
