//! Fuzzes `files::pcap`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ferroflow_fuzz::files::pcap(data));
