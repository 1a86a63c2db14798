//! The bridge to the compiler.

/// Checks the match of an ACL.
///
/// # Errors
/// What is wrong, and where.
pub fn check_match(text: &str) -> Result<(), String> {
    if text.is_empty() { Err("empty".into()) } else { Ok(()) }
}
