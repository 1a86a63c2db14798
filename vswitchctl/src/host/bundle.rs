//! Changes of a lab's rules from words and files: a flow each, `@FILE` for a file of them,
//! `-` for the standard input; all in one transaction.
//!
//! A line of a file may start with what is to be done, as in the files of
//! `ovs-ofctl bundle`: `add`, `modify`, `modify_strict`, `delete`, `delete_strict`.

use std::{
    fs,
    io::{self, Read as _},
};

use ferroflow_proto::host::{FlowChange, flow_change::Kind};

use crate::error::CtlError;

/// Longest input that is taken.
const INPUT_MAX: u64 = 48 << 20;
/// What a line may start with.
const WORDS: [(&str, Kind); 5] = [
    ("add", Kind::Add),
    ("modify", Kind::Modify),
    ("modify_strict", Kind::ModifyStrict),
    ("delete", Kind::Delete),
    ("delete_strict", Kind::DeleteStrict),
];

/// Changes, each with where it was written.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Bundle {
    pub(super) changes: Vec<FlowChange>,
    places: Vec<Place>,
}

/// File and line; `None`: the command line.
type Place = Option<(String, usize)>;

impl Bundle {
    /// Reads words; what does not say otherwise is of this kind.
    pub(super) fn read(words: &[String], kind: Kind) -> Result<Self, CtlError> {
        let mut bundle = Self::default();
        for word in words {
            match word.strip_prefix('@').or((word == "-").then_some("-")) {
                Some(file) => bundle.add_lines(file, &read_text(file)?, kind),
                None => bundle.add(word, kind, None),
            }
        }
        Ok(bundle)
    }

    fn add_lines(&mut self, file: &str, text: &str, kind: Kind) {
        for (idx, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let (first, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let own = WORDS.iter().find(|(word, _)| *word == first);
            let (text, kind) = own.map_or((line, kind), |(_, kind)| (rest.trim_start(), *kind));
            self.add(text, kind, Some((file.to_owned(), idx + 1)));
        }
    }

    fn add(&mut self, text: &str, kind: Kind, place: Place) {
        self.changes.push(FlowChange { kind: kind.into(), text: text.to_owned() });
        self.places.push(place);
    }

    /// The daemon's error about a change by its number, about the place in a file instead.
    pub(super) fn about_place(&self, error: CtlError) -> CtlError {
        let CtlError::Refused { daemon, code, message } = &error else { return error };
        // `change 3: why` or, of a rule that the tables refuse, `change 3, rule …: why`.
        let Some(rest) = message.strip_prefix("change ") else { return error };
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, reason) = rest.split_at(digits);
        let reason = reason.trim_start_matches([':', ',', ' ']);
        let index = number.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
        match index.and_then(|index| self.places.get(index)) {
            Some(Some((file, line))) => {
                CtlError::File { file: file.clone(), line: Some(*line), reason: reason.to_owned() }
            }
            Some(None) if self.places.len() == 1 => {
                CtlError::Refused { daemon: *daemon, code: *code, message: reason.to_owned() }
            }
            _ => error,
        }
    }
}

fn read_text(file: &str) -> Result<String, CtlError> {
    let wrong = |reason: String| CtlError::File { file: file.to_owned(), line: None, reason };
    let source: Box<dyn io::Read> = if file == "-" {
        Box::new(io::stdin().lock())
    } else {
        Box::new(fs::File::open(file).map_err(|error| wrong(error.to_string()))?)
    };
    let mut text = String::new();
    source.take(INPUT_MAX + 1).read_to_string(&mut text).map_err(|error| wrong(error.to_string()))?;
    if text.len() as u64 > INPUT_MAX {
        return Err(wrong(format!("it is larger than {} MiB", INPUT_MAX >> 20)));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use tonic::{Code, Status};

    use super::*;
    use crate::address::Daemon;

    #[test]
    fn files_have_comments_words_and_lines() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("flows");
        fs::write(&file, "# all\n\nip,actions=drop # why\n  delete_strict table=0,arp\ndelete\n").unwrap();
        let file = file.display().to_string();
        let bundle = Bundle::read(&["actions=1".into(), format!("@{file}")], Kind::Add).unwrap();
        let seen: Vec<_> =
            bundle.changes.iter().map(|change| (change.kind(), change.text.as_str())).collect();
        let wanted = [
            (Kind::Add, "actions=1"),
            (Kind::Add, "ip,actions=drop"),
            (Kind::DeleteStrict, "table=0,arp"),
            (Kind::Delete, ""),
        ];
        assert_eq!(seen, wanted);
        let told = |message: &str| {
            let status = Status::new(Code::InvalidArgument, message);
            bundle.about_place(CtlError::from_status(Daemon::Host, &status)).to_string()
        };
        assert_eq!(told("change 3: character 1: what"), format!("{file}:4: character 1: what"));
        assert_eq!(told("change 2, rule `x`: why"), format!("{file}:3: rule `x`: why"));
        for other in ["change 9: x", "change : x", "change 99999999999999999999: x", "no", "change 1: x"] {
            assert_eq!(told(other), other);
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = Bundle::read(&["@/no/such/file".into()], Kind::Add).unwrap_err();
        assert!(error.to_string().starts_with("/no/such/file: "), "{error}");
    }
}
