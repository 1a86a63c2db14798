//! Reads and prints groups:
//! `group_id=1,type=select,bucket=bucket_id:0,weight:10,actions=output:1`.

use std::collections::BTreeSet;

use super::{
    TextError, action,
    cursor::{Cursor, Form, Piece},
    names, print, value,
};
use crate::{
    field::Field,
    group::{Bucket, Group, GroupKind, Selection, SelectionMethod},
    port::PortTable,
    table::{BucketChoice, BucketPlace, GroupChange, MAX_BUCKETS},
    types::{BucketId, GroupId},
};

const KINDS: &[&str] = &["all", "select", "indirect", "ff", "fast_failover"];
const ITEMS: &[&str] = &[
    "group_id",
    "type",
    "selection_method",
    "selection_method_param",
    "fields",
    "command_bucket_id",
    "bucket",
];
const METHODS: &[(&str, SelectionMethod)] =
    &[("hash", SelectionMethod::Hash), ("dp_hash", SelectionMethod::DpHash)];

/// Reads a group. Buckets without a number get the smallest free ones.
///
/// # Errors
/// Says where the text is wrong, and why.
pub fn parse_group(text: &str, ports: &PortTable) -> Result<Group, TextError> {
    let head = GroupReader::read(text, ports)?;
    if head.command_bucket.is_some() {
        return Err(Piece::whole("").error("`command_bucket_id` is for changing buckets, not for a group"));
    }
    let id = head.id()?;
    let kind = head.kind()?;
    Ok(Group::new(id, kind, numbered(head.buckets, BTreeSet::new())))
}

/// Reads which buckets to put into a group, and where:
/// `group_id=1,command_bucket_id=last,bucket=bucket_id:7,actions=output:2`. Buckets without a
/// number get the smallest that `group`, as it is now, has free.
///
/// # Errors
/// Says where the text is wrong, and why.
pub fn parse_inserted_buckets(
    text: &str,
    ports: &PortTable,
    group: impl FnOnce(GroupId) -> Option<Group>,
) -> Result<GroupChange, TextError> {
    let head = GroupReader::read(text, ports)?;
    head.only_buckets()?;
    let id = head.id()?;
    let at = match head.command_bucket {
        None | Some(CommandBucket::Last) => BucketPlace::Last,
        Some(CommandBucket::First) => BucketPlace::First,
        Some(CommandBucket::Id(bucket)) => BucketPlace::After(bucket),
        Some(CommandBucket::All) => {
            return Err(
                Piece::whole("").error("insert buckets `first`, `last` or behind a number, not `all`")
            );
        }
    };
    let taken = group(id).iter().flat_map(|group| &group.buckets).map(|bucket| bucket.id).collect();
    Ok(GroupChange::InsertBuckets { group: id, at, buckets: numbered(head.buckets, taken) })
}

/// Reads which buckets to take out of a group: `group_id=1,command_bucket_id=7`.
///
/// # Errors
/// Says where the text is wrong, and why.
pub fn parse_removed_buckets(text: &str, ports: &PortTable) -> Result<GroupChange, TextError> {
    let head = GroupReader::read(text, ports)?;
    head.only_buckets()?;
    if !head.buckets.is_empty() {
        return Err(Piece::whole("").error("buckets are removed by `command_bucket_id`"));
    }
    let which = match head.command_bucket {
        Some(CommandBucket::First) => BucketChoice::First,
        Some(CommandBucket::Last) => BucketChoice::Last,
        Some(CommandBucket::Id(bucket)) => BucketChoice::Id(bucket),
        Some(CommandBucket::All) => BucketChoice::All,
        None => return Err(Piece::whole("").error("say which: `command_bucket_id=all`, or a number")),
    };
    Ok(GroupChange::RemoveBuckets { group: head.id()?, which })
}

/// Reads which groups to delete: `group_id=1`; `all`, `group_id=all` or nothing are all of
/// them.
///
/// # Errors
/// Says where the text is wrong, and why.
pub fn parse_deleted_groups(text: &str, ports: &PortTable) -> Result<GroupChange, TextError> {
    let text = text.trim();
    if matches!(text, "" | "all" | "group_id=all" | "group_id=any") {
        return Ok(GroupChange::DeleteAll);
    }
    let head = GroupReader::read(text, ports)?;
    head.only_buckets()?;
    if !head.buckets.is_empty() || head.command_bucket.is_some() {
        return Err(Piece::whole("").error("this deletes whole groups; remove buckets to keep the group"));
    }
    head.id().map(GroupChange::Delete)
}

/// Prints a group so that [`parse_group`] reads the same, without statistics.
pub fn print_group(group: &Group) -> String {
    let mut text = format!("group_id={},type={}", group.id, kind_name(&group.kind));
    if let GroupKind::Select(selection) = &group.kind {
        text += &print_selection(selection);
    }
    for bucket in &group.buckets {
        text += &print_bucket(bucket, matches!(group.kind, GroupKind::Select(_)));
    }
    text
}

fn kind_name(kind: &GroupKind) -> &'static str {
    match kind {
        GroupKind::All => "all",
        GroupKind::Select(_) => "select",
        GroupKind::Indirect => "indirect",
        GroupKind::FastFailover => "ff",
    }
}

fn print_selection(selection: &Selection) -> String {
    let mut text = String::new();
    if let Some((name, _)) = METHODS.iter().find(|(_, method)| *method == selection.method) {
        text += &format!(",selection_method={name}");
    }
    if selection.param != 0 {
        text += &format!(",selection_method_param={}", selection.param);
    }
    let fields: Vec<_> = selection.fields.iter().map(|(field, bits)| print_field(*field, *bits)).collect();
    if !fields.is_empty() {
        text += &format!(",fields({})", fields.join(","));
    }
    text
}

fn print_field(field: Field, bits: u128) -> String {
    if bits == field.all_bits() { field.to_string() } else { format!("{field}={bits:#x}") }
}

fn print_bucket(bucket: &Bucket, is_weighted: bool) -> String {
    let mut text = format!(",bucket=bucket_id:{}", bucket.id);
    if is_weighted || bucket.weight != 1 {
        text += &format!(",weight:{}", bucket.weight);
    }
    if let Some(port) = bucket.watch_port {
        text += &format!(",watch_port:{}", names::print_port(port.get().into()));
    }
    if let Some(group) = bucket.watch_group {
        text += &format!(",watch_group:{group}");
    }
    text + ",actions=" + &print::actions(&bucket.actions)
}

#[derive(Clone, Copy)]
enum CommandBucket {
    First,
    Last,
    All,
    Id(BucketId),
}

/// A bucket whose number may still be missing.
struct Read {
    id: Option<BucketId>,
    bucket: Bucket,
}

/// What a group's description says.
#[derive(Default)]
struct GroupReader<'a> {
    id: Option<GroupId>,
    kind: Option<Piece<'a>>,
    selection: Option<Selection>,
    command_bucket: Option<CommandBucket>,
    buckets: Vec<Read>,
}

impl<'a> GroupReader<'a> {
    fn read(text: &'a str, ports: &PortTable) -> Result<Self, TextError> {
        let mut reader = Self::default();
        let (head, buckets) = split_buckets(text);
        let mut cursor = Cursor::new(head);
        while let Some(name) = cursor.name()? {
            let form = cursor.form()?;
            reader.item(name, form, ports)?;
        }
        if buckets.len() > MAX_BUCKETS {
            return Err(head.error(format!("more than {MAX_BUCKETS} buckets")));
        }
        reader.buckets =
            buckets.into_iter().map(|piece| read_bucket(piece, ports)).collect::<Result<_, _>>()?;
        Ok(reader)
    }

    fn item(&mut self, name: Piece<'a>, form: Form<'a>, ports: &PortTable) -> Result<(), TextError> {
        match name.text {
            "group_id" => self.id = Some(action::group_id(form.value(name)?)?),
            "type" => self.kind = Some(form.value(name)?),
            "selection_method" => {
                let text = form.value(name)?;
                let method = METHODS.iter().find(|(known, _)| *known == text.text);
                let Some((_, method)) = method else {
                    let known = METHODS.iter().map(|(known, _)| *known);
                    return Err(text.misspelt(format!("there is no selection method `{}`", text.text), known));
                };
                self.selection_mut().method = *method;
            }
            "selection_method_param" => self.selection_mut().param = value::integer(form.value(name)?)?,
            "fields" => {
                let list = match form {
                    Form::Value(list) | Form::Arguments(list) => list,
                    Form::Bare => return Err(name.error("write fields(name,name=mask)")),
                };
                self.selection_mut().fields = read_fields(list, ports)?;
            }
            "command_bucket_id" => {
                let text = form.value(name)?;
                self.command_bucket = Some(match text.text {
                    "first" => CommandBucket::First,
                    "last" => CommandBucket::Last,
                    "all" => CommandBucket::All,
                    _ => CommandBucket::Id(bucket_id(text)?),
                });
            }
            text => return Err(name.misspelt(format!("a group has no `{text}`"), ITEMS.iter().copied())),
        }
        Ok(())
    }

    fn selection_mut(&mut self) -> &mut Selection {
        self.selection.get_or_insert_default()
    }

    fn id(&self) -> Result<GroupId, TextError> {
        self.id.ok_or_else(|| Piece::whole("").error("a group needs `group_id`"))
    }

    fn kind(&self) -> Result<GroupKind, TextError> {
        let Some(name) = self.kind else {
            return Err(Piece::whole("").error("a group needs `type`: all, select, indirect or ff"));
        };
        let kind = match name.text {
            "select" => return Ok(GroupKind::Select(self.selection.clone().unwrap_or_default())),
            "all" => GroupKind::All,
            "indirect" => GroupKind::Indirect,
            "ff" | "fast_failover" => GroupKind::FastFailover,
            text => {
                return Err(name.misspelt(format!("there is no group type `{text}`"), KINDS.iter().copied()));
            }
        };
        match self.selection {
            Some(_) => Err(name.error("only groups of type select have a selection method")),
            None => Ok(kind),
        }
    }

    /// Refuses what is the group's, where only buckets change.
    fn only_buckets(&self) -> Result<(), TextError> {
        match (self.kind, &self.selection) {
            (None, None) => Ok(()),
            _ => {
                Err(Piece::whole("").error("this changes buckets, not the group's type or selection method"))
            }
        }
    }
}

/// What is before the first bucket, and the buckets.
fn split_buckets(text: &str) -> (Piece<'_>, Vec<Piece<'_>>) {
    // (start of the word, start of the bucket)
    let mut starts = Vec::new();
    for word in ["bucket=", "buckets="] {
        let found = text.match_indices(word).map(|(at, _)| (at, at + word.len()));
        let is_word = |at: usize| {
            text[..at].chars().next_back().is_none_or(|before| before == ',' || before.is_ascii_whitespace())
        };
        starts.extend(found.filter(|(at, _)| is_word(*at)));
    }
    starts.sort_unstable();
    let head = starts.first().map_or(text.len(), |(at, _)| *at);
    let ends = starts.iter().skip(1).map(|(at, _)| *at).chain([text.len()]);
    let buckets = starts
        .iter()
        .zip(ends)
        .map(|((_, start), end)| Piece { text: &text[*start..end], at: *start })
        .collect();
    (Piece { text: &text[..head], at: 0 }, buckets)
}

fn read_bucket(piece: Piece<'_>, ports: &PortTable) -> Result<Read, TextError> {
    let mut id = None;
    // Weight counts in select groups only; there, as everywhere, 1 is what goes without saying.
    let mut bucket = Bucket::new(BucketId::FIRST, Vec::new());
    let mut cursor = Cursor::new(piece);
    loop {
        let list = cursor.rest();
        let Some(name) = cursor.name()? else {
            return Err(
                Piece { text: "", at: list.at }.error("the bucket has no actions; `actions=drop` drops")
            );
        };
        match name.text {
            "bucket_id" => id = Some(bucket_id(cursor.form()?.value(name)?)?),
            "weight" => bucket.weight = value::integer(cursor.form()?.value(name)?)?,
            "watch_port" => bucket.watch_port = Some(names::port(cursor.form()?.value(name)?, ports)?),
            "watch_group" => bucket.watch_group = Some(action::group_id(cursor.form()?.value(name)?)?),
            word => {
                let list = if matches!(word, "actions" | "action") { cursor.rest_of_list()? } else { list };
                bucket.actions = action::parse(list, ports, None)?;
                return Ok(Read { id, bucket });
            }
        }
    }
}

fn bucket_id(text: Piece<'_>) -> Result<BucketId, TextError> {
    BucketId::new(value::integer(text)?).map_err(|error| text.error(error.to_string()))
}

fn read_fields(list: Piece<'_>, ports: &PortTable) -> Result<Vec<(Field, u128)>, TextError> {
    let mut fields: Vec<(Field, u128)> = Vec::new();
    let mut cursor = Cursor::new(list);
    while let Some(name) = cursor.name()? {
        let field = names::field(name)?;
        let bits = match cursor.form()? {
            Form::Bare => field.all_bits(),
            Form::Value(mask) if mask.text.starts_with("0x") => value::number_up_to(mask, field.all_bits())?,
            Form::Value(mask) => value::value_and_mask(field, mask, ports)?.0,
            Form::Arguments(piece) => return Err(piece.error("write name=mask")),
        };
        if bits == 0 {
            return Err(name.error("the mask chooses no bits"));
        }
        if bits != field.all_bits() && !field.info().maskable {
            return Err(name.error(format!("`{field}` can only be used whole, without a mask")));
        }
        if fields.iter().any(|(known, _)| *known == field) {
            return Err(name.error(format!("`{field}` is there twice")));
        }
        fields.push((field, bits));
    }
    Ok(fields)
}

/// Gives numbers to the buckets that have none.
fn numbered(read: Vec<Read>, mut taken: BTreeSet<BucketId>) -> Vec<Bucket> {
    taken.extend(read.iter().filter_map(|read| read.id));
    let mut next = 0;
    let mut free = || {
        loop {
            let id = BucketId::new(next).unwrap_or(BucketId::FIRST);
            next += 1;
            if !taken.contains(&id) {
                return id;
            }
        }
    };
    read.into_iter().map(|read| Bucket { id: read.id.unwrap_or_else(&mut free), ..read.bucket }).collect()
}
