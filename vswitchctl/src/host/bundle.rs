//! Changes of rules, groups and meters from words and files: one each, `@FILE` for a file
//! of them, `-` for the standard input; all in one transaction.
//!
//! A line of a file may start with what is to be done, as in the files of
//! `ovs-ofctl bundle`: `modify_strict …`, `group add …`.

use std::{
    fs,
    io::{self, Read as _},
};

use clap::Args;
use ferroflow_proto::host::{ChangeRulesRequest, RuleChange, rule_change::Kind};
use serde::Serialize;

use crate::{
    error::CtlError,
    session::{Session, host_answer},
};

/// Longest input that is taken.
const INPUT_MAX: u64 = 48 << 20;

/// What changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    Flow,
    Group,
    Meter,
    Set,
    Table,
    Fragments,
    Option,
}

impl Subject {
    const WORDS: [(&str, Self); 7] = [
        ("flow", Self::Flow),
        ("group", Self::Group),
        ("meter", Self::Meter),
        ("set", Self::Set),
        ("table", Self::Table),
        ("frags", Self::Fragments),
        ("tlv-map", Self::Option),
    ];

    /// What a line may start with.
    fn verbs(self) -> &'static [(&'static str, Kind)] {
        match self {
            Self::Flow => &[
                ("add", Kind::FlowAdd),
                ("modify", Kind::FlowModify),
                ("mod", Kind::FlowModify),
                ("modify_strict", Kind::FlowModifyStrict),
                ("delete", Kind::FlowDelete),
                ("del", Kind::FlowDelete),
                ("delete_strict", Kind::FlowDeleteStrict),
            ],
            Self::Group => &[
                ("add", Kind::GroupAdd),
                ("modify", Kind::GroupModify),
                ("mod", Kind::GroupModify),
                ("add_or_mod", Kind::GroupAddOrModify),
                ("delete", Kind::GroupDelete),
                ("del", Kind::GroupDelete),
                ("insert_bucket", Kind::GroupInsertBuckets),
                ("remove_bucket", Kind::GroupRemoveBuckets),
            ],
            Self::Meter => &[
                ("add", Kind::MeterAdd),
                ("modify", Kind::MeterModify),
                ("mod", Kind::MeterModify),
                ("delete", Kind::MeterDelete),
                ("del", Kind::MeterDelete),
            ],
            Self::Set => &[
                ("add", Kind::SetAdd),
                ("replace", Kind::SetReplace),
                ("insert", Kind::SetInsert),
                ("remove", Kind::SetRemove),
                ("delete", Kind::SetDelete),
                ("del", Kind::SetDelete),
            ],
            Self::Table => &[("set", Kind::Table)],
            Self::Fragments => &[("set", Kind::Fragments)],
            Self::Option => {
                &[("add", Kind::OptionMap), ("delete", Kind::OptionUnmap), ("del", Kind::OptionUnmap)]
            }
        }
    }
}

/// What a line without a word of its own means.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unsaid {
    pub(super) subject: Subject,
    pub(super) kind: Kind,
}

/// Change rules, groups, meters and sets in one transaction.
#[derive(Debug, Args)]
#[command(after_help = LINES_HELP)]
pub struct BundleCommand {
    /// A change, `group add group_id=1,type=all,bucket=output:1`; @FILE: one in each line;
    /// -: from the standard input
    #[arg(required = true, value_name = "CHANGE")]
    changes: Vec<String>,
}

const LINES_HELP: &str = "\
A change starts with its subject and verb:
  flow  add, modify, modify_strict, delete, delete_strict
  group add, modify, add_or_mod, delete, insert_bucket, remove_bucket
  meter add, modify, delete
  set   add, replace, insert, remove, delete
  table set: table set table=3,name=acl,miss=continue,max_rules=100,overflow=evict
  frags set: frags set nx-match
  tlv-map add, delete: tlv-map add {class=0xffff,type=0x80,len=4}->tun_metadata1
Without them it is a rule to add. All changes come into force at once, or none does.";

impl BundleCommand {
    /// Does it.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let unsaid = Unsaid { subject: Subject::Flow, kind: Kind::FlowAdd };
        let mut bundle = Bundle::default();
        for change in &self.changes {
            match file_of(change) {
                Some(file) => bundle.add_lines(file, &read_text(file)?, unsaid),
                None => bundle.add_line(change, unsaid, None),
            }
        }
        change(session, bundle, false).await
    }
}

/// Makes changes and prints what is there then.
pub(super) async fn change(
    session: &mut Session<'_>,
    mut bundle: Bundle,
    replace: bool,
) -> Result<(), CtlError> {
    let request = session.request(bundle.take_request(session, replace));
    let mut rules = session.rules().await?;
    let answer = host_answer(rules.change_rules(request).await).map_err(|error| bundle.about_place(error))?;
    let view = ChangeView {
        n_rules: answer.n_rules,
        n_groups: answer.n_groups,
        n_meters: answer.n_meters,
        epoch: answer.epoch,
    };
    session.print(&view, |out| writeln!(out, "{}", view.sentence()))
}

/// What is shown after a change.
#[derive(Debug, Serialize)]
struct ChangeView {
    /// Rules that are there now.
    n_rules: u64,
    n_groups: u64,
    n_meters: u64,
    epoch: u64,
}

impl ChangeView {
    fn sentence(&self) -> String {
        let mut text = format!("{} rules", self.n_rules);
        let others = [(self.n_groups, "groups"), (self.n_meters, "meters")];
        for (n, word) in others.into_iter().filter(|(n, _)| *n > 0) {
            text += &format!(", {n} {word}");
        }
        format!("{text}, epoch {}", self.epoch)
    }
}

/// Changes, each with where it was written.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Bundle {
    pub(super) changes: Vec<RuleChange>,
    places: Vec<Place>,
}

/// File and line; `None`: the command line.
type Place = Option<(String, usize)>;

impl Bundle {
    /// Reads words; what does not say otherwise is of this kind. Only lines of files say.
    pub(super) fn read(words: &[String], unsaid: Unsaid) -> Result<Self, CtlError> {
        let mut bundle = Self::default();
        for word in words {
            match file_of(word) {
                Some(file) => bundle.add_lines(file, &read_text(file)?, unsaid),
                None => bundle.add(word, unsaid.kind, None),
            }
        }
        Ok(bundle)
    }

    /// The request; the places stay, for errors about them.
    pub(super) fn take_request(&mut self, session: &Session<'_>, replace: bool) -> ChangeRulesRequest {
        ChangeRulesRequest { changes: std::mem::take(&mut self.changes), replace, bridge: session.bridge() }
    }

    fn add_lines(&mut self, file: &str, text: &str, unsaid: Unsaid) {
        for (idx, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                self.add_line(line, unsaid, Some((file.to_owned(), idx + 1)));
            }
        }
    }

    fn add_line(&mut self, line: &str, unsaid: Unsaid, place: Place) {
        let (first, rest) = first_word(line);
        let (subject, line, kind) = match Subject::WORDS.iter().find(|(word, _)| *word == first) {
            Some((_, subject)) if *subject == unsaid.subject => (*subject, rest, unsaid.kind),
            Some((_, subject)) => (*subject, rest, subject.verbs()[0].1),
            None => (unsaid.subject, line, unsaid.kind),
        };
        let (first, rest) = first_word(line);
        let own = subject.verbs().iter().find(|(word, _)| *word == first);
        let (text, kind) = own.map_or((line, kind), |(_, kind)| (rest, *kind));
        self.add(text, kind, place);
    }

    fn add(&mut self, text: &str, kind: Kind, place: Place) {
        self.changes.push(RuleChange { kind: kind.into(), text: text.to_owned() });
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

fn first_word(line: &str) -> (&str, &str) {
    let (first, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    (first, rest.trim_start())
}

/// The file that a word stands for.
fn file_of(word: &str) -> Option<&str> {
    word.strip_prefix('@').or((word == "-").then_some("-"))
}

pub(super) fn read_text(file: &str) -> Result<String, CtlError> {
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

    const ADD: Unsaid = Unsaid { subject: Subject::Flow, kind: Kind::FlowAdd };

    #[test]
    fn files_have_comments_words_and_lines() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("flows");
        fs::write(&file, "# all\n\nip,actions=drop # why\n  delete_strict table=0,arp\ndelete\ngroup add group_id=1\nmeter  meter=2\n  flow delete ip\n").unwrap();
        let file = file.display().to_string();
        let bundle = Bundle::read(&["actions=1".into(), format!("@{file}")], ADD).unwrap();
        let seen: Vec<_> =
            bundle.changes.iter().map(|change| (change.kind(), change.text.as_str())).collect();
        let wanted = [
            (Kind::FlowAdd, "actions=1"),
            (Kind::FlowAdd, "ip,actions=drop"),
            (Kind::FlowDeleteStrict, "table=0,arp"),
            (Kind::FlowDelete, ""),
            (Kind::GroupAdd, "group_id=1"),
            (Kind::MeterAdd, "meter=2"),
            (Kind::FlowDelete, "ip"),
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
        let error = Bundle::read(&["@/no/such/file".into()], ADD).unwrap_err();
        assert!(error.to_string().starts_with("/no/such/file: "), "{error}");
    }
}
