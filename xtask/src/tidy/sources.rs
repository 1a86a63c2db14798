//! Rules for each Rust file: it says what it is, it is not too long, nothing is left undone, `unsafe` stays where
//! it may be and says why it is sound, and the pure crates stay pure.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::lexer::{self, Split, is_word, line_of};
use super::{Finding, files};

/// A file with more lines of production code than this wants to be two.
const LINES_MAX: usize = 600;

/// Where `unsafe` may be.
const UNSAFE_PLACES: &[&str] =
    &["confinement/src/install.rs", "dataplane/src/sys/", "dataplane/src/pool", "flowtable/src/hints.rs"];
/// Crates in which it is.
const UNSAFE_CRATES: &[&str] = &["confinement/src/", "dataplane/", "flowtable/"];

/// Crates that see no file, thread, socket, process, environment or clock.
const PURE: &[&str] = &["flowtable/src/", "ovn-northd-lite/src/"];
/// Modules of `std` that the pure crates must not name.
const IMPURE_MODULES: &[&str] = &["env", "fs", "os", "process", "thread"];
/// Paths that the pure crates must not name.
const IMPURE_PATHS: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    "std::net::Tcp",
    "std::net::Udp",
    "std::io::stdin",
    "std::io::stdout",
    "std::io::stderr",
];

/// Words of work left undone, in comments.
const UNDONE_COMMENTS: &[&str] = &["TODO", "FIXME", "XXX"];
/// The same, in code.
const UNDONE_CODE: &[&str] = &["todo!", "unimplemented!", "#[ignore", "dbg!"];

/// Checks every Rust file of the workspace.
pub(super) fn check(root: &Path) -> Result<Vec<Finding>> {
    let paths = files(root, ".rs")?;
    let mut sources = Vec::new();
    for path in paths {
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let path = path.strip_prefix(root).unwrap_or(&path).to_owned();
        sources.push(Source::new(path, &text));
    }
    let test_files: BTreeSet<PathBuf> = sources.iter().flat_map(Source::test_files).collect();
    let check = |source: &Source| source.check(test_files.iter().any(|test| source.path.starts_with(test)));
    Ok(sources.iter().flat_map(check).collect())
}

struct Source {
    path: PathBuf,
    split: Split,
    is_test: Vec<bool>,
    test_modules: Vec<String>,
}

impl Source {
    fn new(path: PathBuf, text: &str) -> Self {
        let split = lexer::split(text);
        let (is_test, test_modules) = lexer::test_lines(&split.code);
        Self { path, split, is_test, test_modules }
    }

    /// Files and folders of the modules that this file declares for tests only.
    fn test_files(&self) -> Vec<PathBuf> {
        let stem = self.path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let folder = match stem {
            "mod" | "lib" | "main" => self.path.with_file_name(""),
            stem => self.path.with_file_name(stem),
        };
        let files = |name: &String| [folder.join(format!("{name}.rs")), folder.join(name)];
        self.test_modules.iter().flat_map(files).collect()
    }

    fn check(&self, is_test_file: bool) -> Vec<Finding> {
        let path = self.path.to_string_lossy();
        let is_test_file = is_test_file || path.contains("/tests/") || path.contains("/benches/");
        let mut findings = Vec::new();
        findings.extend(self.check_doc());
        findings.extend(self.check_length(is_test_file));
        findings.extend(self.check_undone());
        findings.extend(self.check_unsafe());
        if !is_test_file && PURE.iter().any(|place| path.starts_with(place)) {
            findings.extend(self.check_pure());
        }
        findings
    }

    fn finding(&self, line: usize, what: impl Into<String>) -> Finding {
        Finding::new(&self.path, line + 1, what)
    }

    /// `//!` comes before the first item, and crate roots forbid unsafe code.
    fn check_doc(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let head = self.split.code.lines().zip(self.split.comments.lines());
        let mut head = head.take_while(|(code, _)| code.trim().is_empty() || code.trim().starts_with("#!["));
        if !head.any(|(_, comment)| comment.trim_start().starts_with("//!")) {
            findings.push(Finding::new(&self.path, 0, "says nowhere what it is: begin it with `//!`"));
        }
        let path = self.path.to_string_lossy();
        let is_root =
            path.ends_with("/src/lib.rs") || path.ends_with("/src/main.rs") || path.contains("/src/bin/");
        // Where `unsafe` may be it is allowed module by module, which `forbid` would not let through.
        let has_place = UNSAFE_CRATES.iter().any(|place| path.starts_with(place));
        let level = if has_place { "#![deny(unsafe_code)]" } else { "#![forbid(unsafe_code)]" };
        if is_root && !self.split.code.contains(level) {
            findings.push(Finding::new(&self.path, 0, format!("a crate's root without `{level}`")));
        }
        findings
    }

    fn check_length(&self, is_test_file: bool) -> Option<Finding> {
        // Documentation does not count: nobody shall leave it out to stay below the limit.
        let lines = self.split.code.lines().zip(&self.is_test);
        let n = lines.filter(|(code, is_test)| !**is_test && !code.trim().is_empty()).count();
        (n > LINES_MAX && !is_test_file).then(|| {
            Finding::new(&self.path, 0, format!("{n} lines of production, {LINES_MAX} is the most: split it"))
        })
    }

    fn check_undone(&self) -> Vec<Finding> {
        let Split { code, comments } = &self.split;
        let in_comments =
            UNDONE_COMMENTS.iter().flat_map(|word| words(comments, word).map(move |at| (at, *word)));
        let in_code = UNDONE_CODE.iter().flat_map(|word| words(code, word).map(move |at| (at, *word)));
        let finding = |(at, word): (usize, &str)| {
            self.finding(line_of(code, at), format!("{word}: finish it or leave it out"))
        };
        in_comments.chain(in_code).map(finding).collect()
    }

    /// Blocks and impls; for functions clippy wants `# Safety`.
    fn check_unsafe(&self) -> Vec<Finding> {
        let code = &self.split.code;
        let path = self.path.to_string_lossy();
        let is_allowed = UNSAFE_PLACES.iter().any(|place| path.starts_with(place));
        let mut findings = Vec::new();
        for at in words(code, "unsafe") {
            let rest = code[at + "unsafe".len()..].trim_start();
            let line = line_of(code, at);
            if rest.starts_with('(') {
                continue; // An attribute, `#[unsafe(…)]`.
            }
            if !is_allowed {
                findings.push(self.finding(
                    line,
                    "unsafe may only be in dataplane's sys/ and buffer pool, flowtable's hints, and confinement's install.rs",
                ));
            } else if (rest.starts_with('{') || rest.starts_with("impl")) && !self.is_justified(line) {
                findings.push(self.finding(line, "unsafe without a `SAFETY:` comment above it"));
            }
        }
        findings
    }

    /// A `SAFETY:` comment ends on this line or above it; between them may be attributes and the beginning of the
    /// same statement.
    fn is_justified(&self, line: usize) -> bool {
        let code: Vec<&str> = self.split.code.lines().collect();
        let comments: Vec<&str> = self.split.comments.lines().collect();
        if comments[line].contains("SAFETY:") {
            return true;
        }
        for above in (0..line).rev() {
            if comments[above].contains("SAFETY:") {
                return true;
            }
            let text = code[above].trim();
            let is_comment = text.is_empty() && !comments[above].trim().is_empty();
            let ends_statement = text.ends_with([';', '{', '}']) || (text.is_empty() && !is_comment);
            if ends_statement && !text.starts_with('#') {
                return false;
            }
        }
        false
    }

    fn check_pure(&self) -> Vec<Finding> {
        let code = &self.split.code;
        let paths =
            IMPURE_PATHS.iter().flat_map(|path| words(code, path).map(move |at| (at, (*path).to_owned())));
        let named = IMPURE_MODULES.iter().flat_map(|module| {
            let path = format!("std::{module}");
            words(code, &path).map(|at| (at, path.clone())).collect::<Vec<_>>()
        });
        let found = paths.chain(named).chain(impure_imports(code));
        let production = found.filter(|(at, _)| !self.is_test[line_of(code, *at)]);
        production
            .map(|(at, what)| self.finding(line_of(code, at), format!("{what} in a pure crate")))
            .collect()
    }
}

/// Modules named inside the braces of `use std::{…}`.
fn impure_imports(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for start in words(code, "use std::{") {
        let end = code[start..].find(';').map_or(code.len(), |len| start + len);
        for module in IMPURE_MODULES {
            let hits = words(&code[start..end], module).filter(|at| !code[start..start + at].ends_with("::"));
            found.extend(hits.map(|at| (start + at, format!("std::{module}"))));
        }
    }
    found
}

/// Places of a word, not as a part of a longer one.
fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_part = move |byte: Option<&u8>| byte.is_some_and(|byte| is_word(*byte));
    // Only where the pattern itself ends in a letter can it go on in one; `Tcp` stands for all that begin so.
    let is_open_end =
        !word.ends_with(|c: char| c.is_alphanumeric()) || word.ends_with("Tcp") || word.ends_with("Udp");
    text.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let bytes = text.as_bytes();
        let before = at.checked_sub(1).and_then(|at| bytes.get(at));
        !is_part(before) && (is_open_end || !is_part(bytes.get(at + word.len())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        Source::new(PathBuf::from(path), text).check(false).into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn a_good_file_has_no_findings() {
        let text = "//! A thing.\n\n#![forbid(unsafe_code)]\n\nuse std::fmt;\n\n/// Says \"TO\"-\"DO\".\nfn a() { b(\"unsafe\") }\n";
        assert_eq!(findings("controller/src/lib.rs", text), Vec::<String>::new());
    }

    #[test]
    fn roots_and_heads() {
        assert_eq!(findings("controller/src/main.rs", "fn main() {}\n").len(), 2);
        assert_eq!(findings("controller/src/x.rs", "// no doc\nfn a() {}\n").len(), 1);
        assert_eq!(findings("dataplane/src/lib.rs", "//! Doc.\n#![deny(unsafe_code)]\nfn a() {}\n").len(), 0);
        assert_eq!(findings("dataplane/src/lib.rs", "//! Doc.\nfn a() {}\n").len(), 1);
    }

    #[test]
    fn undone_work_is_found_in_comments_and_code_but_not_in_text() {
        let undone =
            ["// TO", "DO: later\nfn a() { to", "do!() }\n#[ign", "ore]\nfn b() { c(\"FIX", "ME\") }\n"]
                .concat();
        assert_eq!(findings("controller/src/x.rs", &format!("//! Doc.\n{undone}")).len(), 3);
    }

    #[test]
    fn unsafe_has_its_place_and_its_reason() {
        let bare = "//! Doc.\nfn a() {\n    let x = 1;\n    unsafe { b() }\n}\n";
        assert_eq!(
            findings("flowtable/src/x.rs", bare),
            [
                "unsafe may only be in dataplane's sys/ and buffer pool, flowtable's hints, and confinement's install.rs"
            ]
        );
        assert_eq!(findings("dataplane/src/sys/x.rs", bare), ["unsafe without a `SAFETY:` comment above it"]);
        let good = "//! Doc.\nfn a() {\n    // SAFETY: b has no demands,\n    // says its doc.\n    #[x]\n    let y =\n        unsafe { b() };\n}\n";
        assert_eq!(findings("dataplane/src/sys/x.rs", good), Vec::<String>::new());
        let second =
            "//! Doc.\nfn a() {\n    // SAFETY: good.\n    unsafe { b() };\n    unsafe { c() };\n}\n";
        assert_eq!(findings("dataplane/src/sys/x.rs", second).len(), 1);
    }

    #[test]
    fn pure_crates_stay_pure_but_their_tests_may_look_at_the_clock() {
        let text = "//! Doc.\nuse std::{fmt, collections::{BTreeMap}, thread};\nuse std::fs;\nfn a() { Instant::now(); std::net::TcpStream::connect(x); std::net::Ipv4Addr::new(); my_env(); }\n#[cfg(test)]\nmod tests {\n use std::fs;\n}\n";
        let mut found = findings("flowtable/src/x.rs", text);
        found.sort();
        let expected = ["Instant::now", "std::fs", "std::net::Tcp", "std::thread"];
        assert_eq!(found, expected.map(|what| format!("{what} in a pure crate")));
        assert_eq!(findings("controller/src/x.rs", text), Vec::<String>::new());
    }

    #[test]
    fn long_files_are_found_without_their_tests() {
        let line = "fn a() {}\n";
        let long = format!("//! Doc.\n{}", line.repeat(LINES_MAX + 1));
        assert_eq!(findings("flowtable/src/x.rs", &long).len(), 1);
        let tested =
            format!("//! Doc.\n{}#[cfg(test)]\nmod tests {{\n{}}}\n", line.repeat(9), line.repeat(LINES_MAX));
        assert_eq!(findings("flowtable/src/x.rs", &tested).len(), 0);
        assert_eq!(findings("flowtable/tests/x.rs", &long).len(), 0);
    }

    #[test]
    fn modules_for_tests_only_are_known_by_their_declaration() {
        let files =
            |path: &str| Source::new(PathBuf::from(path), "#[cfg(test)]\nmod reference;\n").test_files();
        assert_eq!(files("a/src/lib.rs")[0], Path::new("a/src/reference.rs"));
        assert_eq!(files("a/src/b.rs"), ["a/src/b/reference.rs", "a/src/b/reference"].map(PathBuf::from));
    }
}
