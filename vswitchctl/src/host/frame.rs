//! Frames as they are typed and printed: hexadecimal digits.

use std::fmt::Write as _;

/// Longest frame that is taken: the longest an IP packet can be, with its headers.
const FRAME_MAX: usize = 65_535 + 64;

/// The bytes of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame(pub Vec<u8>);

/// Reads hexadecimal digits; blanks, colons and `0x` in front of them mean nothing.
///
/// # Errors
/// Says what a frame is.
pub fn parse_frame(text: &str) -> Result<Frame, String> {
    let text = text.strip_prefix("0x").unwrap_or(text);
    let digits: Vec<u8> = text.bytes().filter(|c| !c.is_ascii_whitespace() && *c != b':').collect();
    if digits.is_empty() || !digits.len().is_multiple_of(2) {
        return Err("a frame is an even number of hexadecimal digits".into());
    }
    if digits.len() / 2 > FRAME_MAX {
        return Err(format!("a frame has at most {FRAME_MAX} bytes"));
    }
    let byte = |pair: &[u8]| {
        let text =
            std::str::from_utf8(pair).ok().filter(|text| text.bytes().all(|c| c.is_ascii_hexdigit()))?;
        u8::from_str_radix(text, 16).ok()
    };
    let bytes: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
    bytes.map(Frame).ok_or_else(|| "a frame is written in hexadecimal digits".into())
}

/// Writes hexadecimal digits, nothing between them.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn frames_are_hexadecimal() {
        assert_eq!(parse_frame("0x0aFF 00\n1:2").unwrap().0, [0x0a, 0xff, 0x00, 0x12]);
        for text in ["", "0x", "0", "0g", "+1", " ", "ä0", "0aä"] {
            assert!(parse_frame(text).is_err(), "{text:?} was taken");
        }
        assert!(parse_frame(&"00".repeat(FRAME_MAX)).is_ok());
        assert!(parse_frame(&"00".repeat(FRAME_MAX + 1)).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes in proptest::collection::vec(any::<u8>(), 1..200)) {
            prop_assert_eq!(parse_frame(&hex(&bytes)).unwrap().0, bytes);
        }

        #[test]
        fn any_text_is_a_frame_or_refused(text in ".{0,60}") {
            let _ = parse_frame(&text);
        }
    }
}
