//! Pieces of text that know where they are, and the cursor that cuts them: the lexer of
//! flow text. Flow text is a list of items, `name`, `name=value`, `name:value` or
//! `name(arguments)`, with commas or blanks between them.

use super::TextError;

/// Characters between items.
pub(super) const SEPARATORS: [char; 5] = [',', ' ', '\t', '\r', '\n'];

/// A part of the text, and its place in the whole.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece<'a> {
    /// The characters.
    pub(super) text: &'a str,
    /// Offset in bytes from the start of the whole text.
    pub(super) at: usize,
}

impl<'a> Piece<'a> {
    /// The whole text.
    pub(super) fn whole(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Without blanks around it.
    pub(super) fn trim(self) -> Self {
        let start = self.text.trim_start();
        Self { text: start.trim_end(), at: self.at + self.text.len() - start.len() }
    }

    /// What is before and behind the first `separator`.
    pub(super) fn split_once(self, separator: &str) -> Option<(Self, Self)> {
        self.text.find(separator).map(|idx| self.cut(idx, separator.len()))
    }

    /// What is before and behind the last `separator`.
    pub(super) fn rsplit_once(self, separator: &str) -> Option<(Self, Self)> {
        self.text.rfind(separator).map(|idx| self.cut(idx, separator.len()))
    }

    /// What is between double quotes, where the piece is quoted.
    pub(super) fn unquoted(self) -> Option<Self> {
        let text = self.text.strip_prefix('"')?.strip_suffix('"')?;
        Some(Self { text, at: self.at + 1 })
    }

    /// An error at this place.
    pub(super) fn error(self, reason: impl Into<String>) -> TextError {
        TextError { at: self.at, reason: reason.into(), suggestion: None }
    }

    /// An error at this place that offers the nearest of the right spellings.
    pub(super) fn misspelt<'n>(
        self,
        reason: impl Into<String>,
        names: impl IntoIterator<Item = &'n str>,
    ) -> TextError {
        let suggestion = super::suggest::nearest(self.text, names).map(str::to_owned);
        TextError { at: self.at, reason: reason.into(), suggestion }
    }

    fn cut(self, idx: usize, len: usize) -> (Self, Self) {
        let (before, behind) = (&self.text[..idx], &self.text[idx + len..]);
        (Self { text: before, ..self }, Self { text: behind, at: self.at + idx + len })
    }
}

/// What follows the name of an item.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form<'a> {
    /// Nothing.
    Bare,
    /// A value behind `=` or `:`.
    Value(Piece<'a>),
    /// Arguments in parentheses, without those.
    Arguments(Piece<'a>),
}

impl<'a> Form<'a> {
    /// The value; an error at the item's name where there is none.
    pub(super) fn value(self, name: Piece<'_>) -> Result<Piece<'a>, TextError> {
        match self {
            Self::Value(value) if !value.text.is_empty() => Ok(value),
            _ => Err(name.error(format!("`{}` needs a value", name.text))),
        }
    }

    /// The value or the arguments; an error at the item's name where there are none.
    pub(super) fn any(self, name: Piece<'_>) -> Result<Piece<'a>, TextError> {
        match self {
            Self::Arguments(arguments) => Ok(arguments.trim()),
            _ => self.value(name),
        }
    }

    /// Refuses a value or arguments.
    pub(super) fn bare(self, name: Piece<'_>) -> Result<(), TextError> {
        match self {
            Self::Bare => Ok(()),
            Self::Value(piece) | Self::Arguments(piece) => {
                Err(piece.error(format!("`{}` takes no value", name.text)))
            }
        }
    }
}

/// Walks over the items of a list.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    rest: Piece<'a>,
}

impl<'a> Cursor<'a> {
    /// Starts before the first item.
    pub(super) fn new(list: Piece<'a>) -> Self {
        Self { rest: list }
    }

    /// The name of the next item; `None` at the end. Its form must be taken next.
    pub(super) fn name(&mut self) -> Result<Option<Piece<'a>>, TextError> {
        self.advance(self.rest.text.len() - self.rest.text.trim_start_matches(SEPARATORS).len());
        if self.rest.text.is_empty() {
            return Ok(None);
        }
        let ends = |c: char| SEPARATORS.contains(&c) || matches!(c, '=' | ':' | '(' | ')');
        let len = match self.quoted_len()? {
            Some(len) => len,
            None => self.rest.text.find(ends).unwrap_or(self.rest.text.len()),
        };
        if len == 0 {
            return Err(self.rest.error("expected a name"));
        }
        Ok(Some(self.advance(len)))
    }

    /// What follows the name.
    pub(super) fn form(&mut self) -> Result<Form<'a>, TextError> {
        match self.rest.text.as_bytes().first() {
            Some(b'=' | b':') => {
                self.advance(1);
                let len = self.value_len()?;
                Ok(Form::Value(self.advance(len)))
            }
            Some(b'(') => {
                let open = self.rest;
                let len = self.value_len()?;
                let group = self.advance(len);
                match group.text.strip_prefix('(').and_then(|text| text.strip_suffix(')')) {
                    Some(text) => Ok(Form::Arguments(Piece { text, at: group.at + 1 })),
                    None => Err(open.error("expected a comma behind the `)` to this `(`")),
                }
            }
            _ => Ok(Form::Bare),
        }
    }

    /// What follows the name up to the next item, as it is.
    pub(super) fn raw(&mut self) -> Result<Piece<'a>, TextError> {
        let len = self.value_len()?;
        Ok(self.advance(len))
    }

    /// All that has not been taken yet.
    pub(super) fn rest(&self) -> Piece<'a> {
        self.rest
    }

    /// All that follows the name, behind its `=`.
    pub(super) fn rest_of_list(&mut self) -> Result<Piece<'a>, TextError> {
        if !self.rest.text.starts_with('=') {
            return Err(self.rest.error("expected `=`"));
        }
        self.advance(1);
        Ok(self.advance(self.rest.text.len()))
    }

    /// Length up to the next separator outside of parentheses and quotes.
    fn value_len(&self) -> Result<usize, TextError> {
        let mut opened = Vec::new();
        let mut quoted = None;
        for (idx, c) in self.rest.text.char_indices() {
            let here = || Piece { text: "", at: self.rest.at + idx };
            match c {
                '"' => quoted = if quoted.is_some() { None } else { Some(idx) },
                _ if quoted.is_some() => {}
                '(' => opened.push(idx),
                ')' if opened.pop().is_none() => return Err(here().error("`)` without `(`")),
                _ if opened.is_empty() && SEPARATORS.contains(&c) => return Ok(idx),
                _ => {}
            }
        }
        let unclosed = |idx: usize, what| Piece { text: "", at: self.rest.at + idx }.error(what);
        match (quoted, opened.last()) {
            (Some(idx), _) => Err(unclosed(idx, "`\"` without its end")),
            (None, Some(idx)) => Err(unclosed(*idx, "`(` without `)`")),
            (None, None) => Ok(self.rest.text.len()),
        }
    }

    /// Length of the quoted name that is next, if one is.
    fn quoted_len(&self) -> Result<Option<usize>, TextError> {
        let Some(inner) = self.rest.text.strip_prefix('"') else { return Ok(None) };
        match inner.find('"') {
            Some(len) => Ok(Some(len + 2)),
            None => Err(self.rest.error("`\"` without its end")),
        }
    }

    /// Cuts off the next `len` bytes.
    fn advance(&mut self, len: usize) -> Piece<'a> {
        let (piece, rest) = self.rest.cut(len, 0);
        self.rest = rest;
        piece
    }
}
