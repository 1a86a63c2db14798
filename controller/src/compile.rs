//! The bridge to the compiler.

/// Checks the match of an ACL.
///
/// # Errors
/// What is wrong, and where.
pub fn check_match(text: &str) -> Result<(), String> {
    ovn_northd_lite::expr::check_match(text).map_err(|error| error.to_string())
}
