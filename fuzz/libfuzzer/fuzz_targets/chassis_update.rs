//! Fuzzes `messages::chassis_update`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ferroflow_fuzz::messages::chassis_update(data));
