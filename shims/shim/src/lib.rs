//! What container shims share: the host's daemon behind its socket ([`daemon`]), and what is
//! left for it to do while it is not there ([`departed`]).

#![forbid(unsafe_code)]

pub mod daemon;
pub mod departed;

pub use daemon::Daemon;

/// Longest name, and longest part of one (RFC 1035 §2.3.4).
const MAX_NAME_LEN: usize = 253;
const MAX_PART_LEN: usize = 63;

/// Resolvers can ask for this name.
pub fn is_name(text: &str) -> bool {
    let is_part = |part: &str| {
        (1..=MAX_PART_LEN).contains(&part.len())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    text.len() <= MAX_NAME_LEN && text.split('.').all(is_part)
}

/// Where vswitchd listens unless said otherwise.
pub const DEFAULT_SOCKET: &str = "/run/ferroflow/vswitchd.sock";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_can_be_asked_for() {
        for name in ["a", "web-0.shop", "0a1b2c_3", &"a".repeat(63)] {
            assert!(is_name(name), "{name}");
        }
        for wrong in ["", ".", "a.", "a..b", "a b", "ä", &"a".repeat(64), &["a"; 128].join(".")] {
            assert!(!is_name(wrong), "{wrong}");
        }
    }
}
