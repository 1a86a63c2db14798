//! Rust text split into code and comments, well enough for rules about words. No parser: what is inside
//! literals is blanked, positions stay.

/// A source file as two texts of the same length and the same lines.
#[derive(Debug)]
pub(super) struct Split {
    /// Comments and the insides of literals are blanks.
    pub(super) code: String,
    /// All but comments is blanks.
    pub(super) comments: String,
}

/// Splits a source text.
pub(super) fn split(text: &str) -> Split {
    let mut lexer = Lexer { bytes: text.as_bytes(), at: 0, code: Vec::new(), comments: Vec::new() };
    while let Some(&byte) = lexer.bytes.get(lexer.at) {
        match byte {
            b'/' if lexer.next() == Some(b'/') => lexer.line_comment(),
            b'/' if lexer.next() == Some(b'*') => lexer.block_comment(),
            b'"' => lexer.string(),
            b'\'' => lexer.quote(),
            b'r' | b'b' | b'c' if !lexer.in_word() => lexer.prefixed(),
            _ => lexer.code(1),
        }
    }
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Split { code: text(lexer.code), comments: text(lexer.comments) }
}

/// True for each line that belongs to an item under `#[cfg(test)]`; `code` as [`split`] gives it. Also names
/// the modules that are declared so and live in files of their own.
pub(super) fn test_lines(code: &str) -> (Vec<bool>, Vec<String>) {
    let mut is_test = vec![false; code.lines().count()];
    let mut modules = Vec::new();
    let mut from = 0;
    while let Some(found) = code[from..].find("#[cfg(test)]").or_else(|| code[from..].find("#[cfg(all(test"))
    {
        let start = from + found;
        let end = item_end(code, start);
        let item = &code[start..end];
        if let Some((_, declaration)) = item.rsplit_once("mod ")
            && let Some(name) = declaration.strip_suffix(';')
        {
            modules.push(name.trim().to_owned());
        }
        let (first, last) = (line_of(code, start), line_of(code, end.saturating_sub(1)));
        is_test.iter_mut().take(last + 1).skip(first).for_each(|line| *line = true);
        from = end;
    }
    (is_test, modules)
}

/// Line of a position, from 0.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count()
}

/// Behind the item whose attributes begin at `start`: its `;`, or the brace that closes its body.
fn item_end(code: &str, start: usize) -> usize {
    let (mut braces, mut brackets) = (0_u32, 0_u32);
    for (at, byte) in code.bytes().enumerate().skip(start) {
        match byte {
            b'{' => braces += 1,
            b'}' => {
                braces = braces.saturating_sub(1);
                if braces == 0 {
                    return at + 1;
                }
            }
            b'[' | b'(' => brackets += 1,
            b']' | b')' => brackets = brackets.saturating_sub(1),
            b';' if braces == 0 && brackets == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

struct Lexer<'a> {
    bytes: &'a [u8],
    at: usize,
    code: Vec<u8>,
    comments: Vec<u8>,
}

impl Lexer<'_> {
    fn next(&self) -> Option<u8> {
        self.bytes.get(self.at + 1).copied()
    }

    /// The byte before belongs to an identifier: this is no prefix of a literal.
    fn in_word(&self) -> bool {
        self.at.checked_sub(1).and_then(|at| self.bytes.get(at)).is_some_and(|byte| is_word(*byte))
    }

    /// Takes `n` bytes over into one text, and blanks into the other.
    fn take(&mut self, n: usize, is_code: bool, is_comment: bool) {
        let end = (self.at + n).min(self.bytes.len());
        for &byte in &self.bytes[self.at..end] {
            let blank = if byte == b'\n' { b'\n' } else { b' ' };
            self.code.push(if is_code { byte } else { blank });
            self.comments.push(if is_comment { byte } else { blank });
        }
        self.at = end;
    }

    fn code(&mut self, n: usize) {
        self.take(n, true, false);
    }

    fn line_comment(&mut self) {
        let len = self.bytes[self.at..].iter().position(|byte| *byte == b'\n');
        self.take(len.unwrap_or(self.bytes.len() - self.at), false, true);
    }

    fn block_comment(&mut self) {
        let mut depth = 0_u32;
        while self.at < self.bytes.len() {
            match &self.bytes[self.at..] {
                [b'/', b'*', ..] => {
                    depth += 1;
                    self.take(2, false, true);
                }
                [b'*', b'/', ..] => {
                    depth -= 1;
                    self.take(2, false, true);
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.take(1, false, true),
            }
        }
    }

    fn string(&mut self) {
        self.code(1);
        while let Some(&byte) = self.bytes.get(self.at) {
            match byte {
                b'\\' => self.take(2, false, false),
                b'"' => return self.code(1),
                _ => self.take(1, false, false),
            }
        }
    }

    /// A character, or the quote of a lifetime.
    fn quote(&mut self) {
        let rest = &self.bytes[self.at + 1..];
        let len = match rest {
            [b'\\', _, rest @ ..] => rest.iter().position(|byte| *byte == b'\'').map(|n| n + 2),
            // A character has up to four bytes.
            [_, ..] => (1..=4).find(|n| rest.get(*n) == Some(&b'\'')).filter(|n| {
                let text = std::str::from_utf8(&rest[..*n]);
                text.is_ok_and(|text| text.chars().count() == 1)
            }),
            [] => None,
        };
        self.code(1);
        if let Some(len) = len {
            self.take(len, false, false);
            self.code(1);
        }
    }

    /// `r"…"`, `r#"…"#`, `b"…"`, `br#"…"#`, `b'…'`, `c"…"`, or a word that begins so.
    fn prefixed(&mut self) {
        let rest = &self.bytes[self.at..];
        let prefix_len = rest.iter().take(2).take_while(|byte| matches!(byte, b'r' | b'b' | b'c')).count();
        let n_hashes = rest[prefix_len..].iter().take_while(|byte| **byte == b'#').count();
        let is_raw = rest[..prefix_len].contains(&b'r');
        match rest.get(prefix_len + n_hashes) {
            Some(b'"') if is_raw => {
                self.code(prefix_len + n_hashes + 1);
                let close = [b"\"".as_slice(), "#".repeat(n_hashes).as_bytes()].concat();
                let len = self.bytes[self.at..].windows(close.len()).position(|window| window == close);
                self.take(len.unwrap_or(self.bytes.len()), false, false);
                self.code(close.len());
            }
            Some(b'"') if n_hashes == 0 => {
                self.code(prefix_len);
                self.string();
            }
            _ => self.code(1),
        }
    }
}

/// Part of an identifier.
pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r####"
let a = "unsafe // no"; // comment "one"
let b = r#"unsafe " /* no */"#; /* two /* nested */ unsafe */ let c = '"'; let d = '\''; fn e<'a>(x: &'a str) {}
let f = b"\"unsafe"; let g = 'ü'; for_r("unsafe"); let h = b'x'; // three
"####;

    #[test]
    fn literals_and_comments_are_not_code() {
        let Split { code, comments } = split(TEXT);
        assert_eq!(code.len(), TEXT.len());
        assert_eq!(comments.len(), TEXT.len());
        assert_eq!(code.lines().count(), TEXT.lines().count());
        assert!(!code.contains("unsafe"), "{code}");
        assert!(code.contains("fn e<'a>(x: &'a str) {}") && code.contains("let c") && code.contains("let h"));
        assert!(
            comments.contains("comment \"one\"")
                && comments.contains("unsafe */")
                && comments.contains("three")
        );
        assert!(!comments.contains("let"), "{comments}");
    }

    #[test]
    fn any_prefix_of_a_text_is_taken() {
        for len in (0..TEXT.len()).filter(|len| TEXT.is_char_boundary(*len)) {
            let text = &TEXT[..len];
            let Split { code, comments } = split(text);
            assert_eq!((code.len(), comments.len()), (len, len));
            test_lines(&code);
        }
    }

    #[test]
    fn test_items_are_found() {
        let text = "fn a() {}\n#[cfg(test)]\n#[x]\nmod tests {\n fn b() { }\n}\nfn c() {}\n#[cfg(test)]\nmod reference;\nfn d() {}\n";
        let (lines, modules) = test_lines(&split(text).code);
        assert_eq!(lines, [false, true, true, true, true, true, false, true, true, false]);
        assert_eq!(modules, ["reference"]);
    }
}
