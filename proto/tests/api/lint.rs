//! The rules of `buf lint`, by their names there.

use std::collections::{BTreeMap, BTreeSet};

use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto};

use super::files;

/// Where rules do not hold, as `buf.yaml` says: calls of a host's own socket share messages.
const EXCEPTIONS: [(&str, &str); 3] = [
    ("RPC_REQUEST_RESPONSE_UNIQUE", "ferroflow/host/"),
    ("RPC_REQUEST_STANDARD_NAME", "ferroflow/host/"),
    ("RPC_RESPONSE_STANDARD_NAME", "ferroflow/host/"),
];

/// What breaks a rule, one line each.
#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    fn check(&mut self, holds: bool, rule: &str, what: impl std::fmt::Display) {
        let what = what.to_string();
        let is_excepted = EXCEPTIONS.iter().any(|(known, place)| *known == rule && what.starts_with(place));
        if !holds && !is_excepted {
            self.0.push(format!("{rule}: {what}"));
        }
    }
}

fn is_lower_snake(name: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    name.split('_').all(is_word) && name.starts_with(|first: char| first.is_ascii_lowercase())
}

fn is_pascal(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_uppercase())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// `LogicalSwitch` as `LOGICAL_SWITCH`.
fn upper_snake(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(c.to_ascii_uppercase());
    }
    text
}

fn lint(files: &[FileDescriptorProto]) -> Vec<String> {
    let mut findings = Findings::default();
    let mut used = BTreeMap::new();
    for file in files {
        let (name, package) = (file.name(), file.package());
        let (folder, base) = name.rsplit_once('/').unwrap_or(("", name));
        findings.check(folder == package.replace('.', "/"), "PACKAGE_DIRECTORY_MATCH", name);
        let version = package.rsplit('.').next().unwrap_or_default();
        let is_version = version.strip_prefix('v').is_some_and(|n| n.bytes().all(|c| c.is_ascii_digit()));
        findings.check(is_version && version.len() > 1, "PACKAGE_VERSION_SUFFIX", package);
        findings.check(package.split('.').all(is_lower_snake), "PACKAGE_LOWER_SNAKE_CASE", package);
        findings.check(
            base.strip_suffix(".proto").is_some_and(is_lower_snake),
            "FILE_LOWER_SNAKE_CASE",
            name,
        );
        findings.check(file.syntax() == "proto3", "SYNTAX_SPECIFIED", name);
        findings.check(file.public_dependency.is_empty(), "IMPORT_NO_PUBLIC", name);
        findings.check(file.weak_dependency.is_empty(), "IMPORT_NO_WEAK", name);
        file.message_type.iter().for_each(|message| of_message(&mut findings, name, message));
        file.enum_type.iter().for_each(|kind| of_enum(&mut findings, name, kind));
        for service in &file.service {
            let (id, at) = (service.name(), format!("{name}: {}", service.name()));
            findings.check(is_pascal(id), "SERVICE_PASCAL_CASE", &at);
            findings.check(id.ends_with("Service"), "SERVICE_SUFFIX", &at);
            for method in &service.method {
                let (rpc, at) = (method.name(), format!("{at}.{}", method.name()));
                findings.check(is_pascal(rpc), "RPC_PASCAL_CASE", &at);
                for (kind, text) in [("Request", method.input_type()), ("Response", method.output_type())] {
                    let short = text.rsplit('.').next().unwrap_or_default();
                    let rule = format!("RPC_{}_STANDARD_NAME", kind.to_ascii_uppercase());
                    let is_standard = short == format!("{rpc}{kind}") || short == format!("{id}{rpc}{kind}");
                    findings.check(is_standard, &rule, format!("{at}: {short}"));
                    if let Some(other) = used.insert(text.to_owned(), at.clone()) {
                        findings.check(
                            false,
                            "RPC_REQUEST_RESPONSE_UNIQUE",
                            format!("{at} and {other}: {short}"),
                        );
                    }
                }
            }
        }
    }
    let packages: BTreeSet<_> =
        files.iter().map(|file| (file.package(), file.name().rsplit_once('/'))).collect();
    let folders: BTreeMap<_, BTreeSet<_>> =
        packages.iter().fold(BTreeMap::new(), |mut folders, (package, path)| {
            folders.entry(*package).or_insert_with(BTreeSet::new).insert(path.map(|(folder, _)| folder));
            folders
        });
    for (package, folders) in folders {
        findings.check(folders.len() == 1, "PACKAGE_SAME_DIRECTORY", package);
    }
    findings.0
}

fn of_message(findings: &mut Findings, file: &str, message: &DescriptorProto) {
    if message.options.as_ref().is_some_and(|options| options.map_entry()) {
        return;
    }
    let at = format!("{file}: {}", message.name());
    findings.check(is_pascal(message.name()), "MESSAGE_PASCAL_CASE", &at);
    for field in &message.field {
        findings.check(
            is_lower_snake(field.name()),
            "FIELD_LOWER_SNAKE_CASE",
            format!("{at}.{}", field.name()),
        );
    }
    for (index, oneof) in message.oneof_decl.iter().enumerate() {
        // An `optional` field has one of its own, which nobody names.
        let is_real = message.field.iter().any(|field| {
            field.oneof_index == Some(index as i32) && !field.proto3_optional.unwrap_or_default()
        });
        let is_fine = !is_real || is_lower_snake(oneof.name());
        findings.check(is_fine, "ONEOF_LOWER_SNAKE_CASE", format!("{at}.{}", oneof.name()));
    }
    message.nested_type.iter().for_each(|nested| of_message(findings, file, nested));
    message.enum_type.iter().for_each(|kind| of_enum(findings, file, kind));
}

fn of_enum(findings: &mut Findings, file: &str, kind: &EnumDescriptorProto) {
    let at = format!("{file}: {}", kind.name());
    findings.check(is_pascal(kind.name()), "ENUM_PASCAL_CASE", &at);
    let alias = kind.options.as_ref().is_some_and(|options| options.allow_alias());
    findings.check(!alias, "ENUM_NO_ALLOW_ALIAS", &at);
    let prefix = upper_snake(kind.name()) + "_";
    for value in &kind.value {
        let at = format!("{at}.{}", value.name());
        findings.check(value.name().starts_with(&prefix), "ENUM_VALUE_PREFIX", &at);
        let is_upper = value.name().to_ascii_uppercase() == value.name();
        findings.check(is_upper, "ENUM_VALUE_UPPER_SNAKE_CASE", &at);
        let is_zero = value.number() == 0;
        let is_fine = !is_zero || value.name().ends_with("_UNSPECIFIED");
        findings.check(is_fine, "ENUM_ZERO_VALUE_SUFFIX", &at);
    }
    findings.check(kind.value.first().is_some_and(|first| first.number() == 0), "ENUM_FIRST_VALUE_ZERO", &at);
}

#[test]
fn the_contracts_keep_the_rules() {
    let findings = lint(&files());
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

#[test]
fn the_exceptions_are_those_of_buf() {
    let told = include_str!("../../buf.yaml");
    let (_, ignored) = told.split_once("ignore_only:").unwrap();
    let lines: Vec<_> = ignored.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let pairs = lines
        .chunks(2)
        .map(|pair| (pair[0].trim_end_matches(':'), format!("{}/", pair[1].trim_start_matches("- proto/"))));
    let pairs: Vec<_> = pairs.collect();
    let known: Vec<_> = EXCEPTIONS.iter().map(|(rule, place)| (*rule, (*place).to_owned())).collect();
    assert_eq!(pairs, known);
}

#[test]
fn what_breaks_a_rule_is_found() {
    let mut files = files();
    let file = files.iter_mut().find(|file| file.name().ends_with("northbound.proto")).unwrap();
    file.name = Some("ferroflow/Wrong.proto".into());
    file.service[0].name = Some("Thing".into());
    file.service[0].method[0].name = Some("do_it".into());
    file.message_type[0].name = Some("lower".into());
    file.enum_type[0].value[0].name = Some("NOTHING".into());
    let found = lint(&files).join("\n");
    for rule in [
        "PACKAGE_DIRECTORY_MATCH",
        "FILE_LOWER_SNAKE_CASE",
        "SERVICE_SUFFIX",
        "RPC_PASCAL_CASE",
        "RPC_REQUEST_STANDARD_NAME",
        "MESSAGE_PASCAL_CASE",
        "ENUM_VALUE_PREFIX",
        "ENUM_ZERO_VALUE_SUFFIX",
    ] {
        assert!(found.contains(rule), "{rule} is not in\n{found}");
    }
}
