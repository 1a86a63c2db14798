//! The pages of `docs/api/`, one for each package, from the comments of the contracts.

use std::{collections::BTreeMap, env, fmt::Write as _, fs, path::Path};

use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    field_descriptor_proto::{Label, Type},
};

use super::files;

/// Set, the pages are written instead of compared.
const UPDATE: &str = "UPDATE_API_PAGES";
/// Numbers of fields in descriptors, of which paths to comments are made (descriptor.proto).
const PACKAGE: i32 = 2;
const MESSAGE: i32 = 4;
const ENUM: i32 = 5;
const SERVICE: i32 = 6;
const FIELD: i32 = 2;
const NESTED: i32 = 3;
const NESTED_ENUM: i32 = 4;
const VALUE: i32 = 2;
const METHOD: i32 = 2;

/// Comments by path.
struct Comments(BTreeMap<Vec<i32>, String>);

impl Comments {
    fn of(file: &FileDescriptorProto) -> Self {
        let locations = file.source_code_info.iter().flat_map(|info| &info.location);
        let told = locations.filter_map(|location| {
            let lines = location.leading_comments.as_ref()?.lines().map(str::trim);
            let mut text = String::new();
            for line in lines {
                // An empty line begins a paragraph.
                let gap = if text.is_empty() || text.ends_with("<br>") { "" } else { " " };
                text.push_str(if line.is_empty() { "<br>" } else { gap });
                text.push_str(line);
            }
            Some((location.path.clone(), text.trim_end_matches("<br>").replace('|', "\\|")))
        });
        Self(told.collect())
    }

    fn at(&self, path: &[i32]) -> &str {
        self.0.get(path).map_or("", String::as_str)
    }
}

fn page(package: &str, files: &[&FileDescriptorProto]) -> String {
    let mut page = format!("# {package}\n\n");
    page.push_str("Made from the `.proto` files by `UPDATE_API_PAGES=1 cargo test -p ferroflow-proto`.\n");
    for file in files {
        let comments = Comments::of(file);
        let about = comments.at(&[PACKAGE]).replace("<br>", "\n\n");
        let _ = write!(page, "\n## {}\n\n", file.name().rsplit('/').next().unwrap_or_default());
        if !about.is_empty() {
            let _ = writeln!(page, "{about}\n");
        }
        for (n, service) in (0..).zip(&file.service) {
            let path = [SERVICE, n];
            let _ = writeln!(page, "### {}\n\n{}\n", service.name(), paragraph(comments.at(&path)));
            page.push_str("| call | request | answer | |\n|---|---|---|---|\n");
            for (m, method) in (0..).zip(&service.method) {
                let stream = |is: bool| if is { "stream of " } else { "" };
                let _ = writeln!(
                    page,
                    "| `{}` | {}`{}` | {}`{}` | {} |",
                    method.name(),
                    stream(method.client_streaming()),
                    short(method.input_type()),
                    stream(method.server_streaming()),
                    short(method.output_type()),
                    comments.at(&[SERVICE, n, METHOD, m]),
                );
            }
            page.push('\n');
        }
        for (n, message) in (0..).zip(&file.message_type) {
            of_message(&mut page, &comments, message, "", &[MESSAGE, n]);
        }
        for (n, kind) in (0..).zip(&file.enum_type) {
            of_enum(&mut page, &comments, kind, "", &[ENUM, n]);
        }
    }
    page.trim_end().to_owned() + "\n"
}

fn of_message(page: &mut String, comments: &Comments, message: &DescriptorProto, within: &str, path: &[i32]) {
    if message.options.as_ref().is_some_and(|options| options.map_entry()) {
        return;
    }
    let name = format!("{within}{}", message.name());
    let _ = writeln!(page, "### {name}\n");
    let about = paragraph(comments.at(path));
    if !about.is_empty() {
        let _ = writeln!(page, "{about}\n");
    }
    if !message.field.is_empty() {
        page.push_str("| field | | type | |\n|---|---|---|---|\n");
    }
    for (n, field) in (0..).zip(&message.field) {
        let told = comments.at(&[path, &[FIELD, n]].concat()).to_owned();
        let choice = field.oneof_index.filter(|_| !field.proto3_optional());
        let choice = choice.and_then(|index| message.oneof_decl.get(index as usize));
        let choice = choice.map(|oneof| format!("one of `{}`. ", oneof.name())).unwrap_or_default();
        let (id, number, kind) = (field.name(), field.number(), type_of(field, message));
        let _ = writeln!(page, "| `{id}` | {number} | {kind} | {choice}{told} |");
    }
    if !message.field.is_empty() {
        page.push('\n');
    }
    for (n, nested) in (0..).zip(&message.nested_type) {
        of_message(page, comments, nested, &format!("{name}."), &[path, &[NESTED, n]].concat());
    }
    for (n, kind) in (0..).zip(&message.enum_type) {
        of_enum(page, comments, kind, &format!("{name}."), &[path, &[NESTED_ENUM, n]].concat());
    }
}

fn of_enum(page: &mut String, comments: &Comments, kind: &EnumDescriptorProto, within: &str, path: &[i32]) {
    let _ = writeln!(page, "### {within}{}\n", kind.name());
    let about = paragraph(comments.at(path));
    if !about.is_empty() {
        let _ = writeln!(page, "{about}\n");
    }
    page.push_str("| value | | |\n|---|---|---|\n");
    for (n, value) in (0..).zip(&kind.value) {
        let told = comments.at(&[path, &[VALUE, n]].concat());
        let _ = writeln!(page, "| `{}` | {} | {told} |", value.name(), value.number());
    }
    page.push('\n');
}

fn type_of(field: &FieldDescriptorProto, message: &DescriptorProto) -> String {
    let named = short(field.type_name());
    let entry = message.nested_type.iter().find(|nested| {
        nested.name() == named && nested.options.as_ref().is_some_and(|options| options.map_entry())
    });
    if let Some([key, value]) = entry.map(|entry| &entry.field[..]) {
        return format!("map of {} to {}", type_of(key, message), type_of(value, message));
    }
    let one = match field.r#type() {
        Type::Message | Type::Enum => format!("`{named}`"),
        other => other.as_str_name().trim_start_matches("TYPE_").to_ascii_lowercase(),
    };
    match (field.label(), field.proto3_optional()) {
        (Label::Repeated, _) => format!("list of {one}"),
        (_, true) => format!("optional {one}"),
        _ => one,
    }
}

/// A type by its name within its package.
fn short(name: &str) -> &str {
    let name = name.trim_start_matches('.');
    match name.split_once(".v1.") {
        Some((_, within)) => within.rsplit('.').next().unwrap_or(within),
        None => name.rsplit('.').next().unwrap_or(name),
    }
}

fn paragraph(text: &str) -> String {
    text.replace("<br>", "\n\n").replace("\\|", "|")
}

#[test]
fn the_pages_are_those_of_the_contracts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/api");
    let files = files();
    let mut by_package: BTreeMap<&str, Vec<&FileDescriptorProto>> = BTreeMap::new();
    for file in &files {
        by_package.entry(file.package()).or_default().push(file);
    }
    for (package, mut files) in by_package {
        files.sort_by_key(|file| file.name());
        let (path, page) = (folder.join(format!("{package}.md")), page(package, &files));
        if env::var_os(UPDATE).is_some() {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&path, &page).unwrap();
        }
        let present = fs::read_to_string(&path).unwrap_or_default();
        assert!(present == page, "{} is old: {UPDATE}=1 cargo test -p ferroflow-proto", path.display());
        assert!(page.matches("###").count() > 10, "{page}");
    }
}
