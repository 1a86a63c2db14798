//! What was said by a former version is read by this one as what it was: no field that has ever been in use
//! gets another number, type or meaning of its name. Fields come, and go by being reserved.

use std::{collections::BTreeSet, env, fs, path::Path};

use prost_types::DescriptorProto;

use super::files;

/// Set, fields that are new are added to the list.
const UPDATE: &str = "UPDATE_API_PAGES";
/// Fields that have been in use: `chassis.v1.Ack 1 TYPE_UINT64 LABEL_OPTIONAL revision`.
const RECORDED: &str = include_str!("fields.txt");

/// What hosts, controllers and clients of different versions say to each other.
fn is_between_versions(package: &str) -> bool {
    package.starts_with("ferroflow.chassis.") || package.starts_with("ferroflow.northbound.")
}

#[derive(Default)]
struct Fields {
    present: BTreeSet<String>,
    /// Message and number, of those that are gone for good.
    reserved: Vec<(String, std::ops::Range<i32>)>,
}

impl Fields {
    fn add(&mut self, within: &str, message: &DescriptorProto) {
        let name = format!("{within}.{}", message.name());
        for field in &message.field {
            let kind = match field.type_name() {
                "" => field.r#type().as_str_name(),
                named => named.trim_start_matches(".ferroflow."),
            };
            let (number, label) = (field.number(), field.label().as_str_name());
            self.present.insert(format!("{name} {number} {kind} {label} {}", field.name()));
        }
        let reserved = message.reserved_range.iter().map(|range| (name.clone(), range.start()..range.end()));
        self.reserved.extend(reserved);
        message.nested_type.iter().for_each(|nested| self.add(&name, nested));
    }

    fn is_reserved(&self, line: &str) -> bool {
        let mut words = line.split(' ');
        let (message, number) = (words.next(), words.next().and_then(|number| number.parse().ok()));
        let is_it = |(name, range): &(String, std::ops::Range<i32>)| {
            Some(name.as_str()) == message && number.is_some_and(|number: i32| range.contains(&number))
        };
        self.reserved.iter().any(is_it)
    }
}

#[test]
fn fields_that_have_been_in_use_keep_their_numbers_and_types() {
    let mut fields = Fields::default();
    for file in files().iter().filter(|file| is_between_versions(file.package())) {
        let package = file.package().trim_start_matches("ferroflow.");
        file.message_type.iter().for_each(|message| fields.add(package, message));
    }
    let recorded: BTreeSet<_> = RECORDED.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
    let gone = recorded.iter().filter(|line| !fields.present.contains(*line) && !fields.is_reserved(line));
    let gone: Vec<_> = gone.collect();
    assert!(
        gone.is_empty(),
        "other versions still say these; keep them, or reserve their numbers: {gone:#?}"
    );
    if env::var_os(UPDATE).is_some() {
        let all: BTreeSet<_> = recorded.union(&fields.present).cloned().collect();
        let text: String = all.iter().map(|line| format!("{line}\n")).collect();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api/fields.txt");
        fs::write(path, text).unwrap();
    } else {
        assert!(recorded.len() > 300, "{} fields are recorded", recorded.len());
    }
}
