//! The contracts as a whole: they keep the rules of `buf lint` (its category STANDARD), and the pages about
//! them in `docs/api/` are those that follow from them. What former versions say is still read as what it was.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod compatibility;
mod lint;
mod pages;

use prost::Message as _;
use prost_types::{FileDescriptorProto, FileDescriptorSet};

/// Our files, without those of others that they use.
fn files() -> Vec<FileDescriptorProto> {
    let set = FileDescriptorSet::decode(ferroflow_proto::FILE_DESCRIPTOR_SET).unwrap();
    let files: Vec<_> =
        set.file.into_iter().filter(|file| file.package().starts_with("ferroflow.")).collect();
    assert!(files.len() >= 9, "{} files", files.len());
    files
}
