//! The probe as a program of its own, for scenarios.

#![forbid(unsafe_code)]

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    ferroflow_tests::probe::main(&words)
}
