//! Reads and prints how a table is run: `table=3,name=acl,miss=continue,max_rules=100,overflow=evict`.

use super::{
    TextError,
    cursor::{Cursor, Form, Piece},
    value,
};
use crate::{
    table::{MissPolicy, OverflowPolicy, TableSettings},
    types::TableId,
};

const ITEMS: &[&str] = &["table", "name", "miss", "max_rules", "overflow"];
const MISSES: &[(&str, MissPolicy)] =
    &[("drop", MissPolicy::Drop), ("continue", MissPolicy::Continue), ("controller", MissPolicy::Controller)];
const OVERFLOWS: &[(&str, OverflowPolicy)] =
    &[("refuse", OverflowPolicy::Refuse), ("evict", OverflowPolicy::Evict)];
/// Longest name of a table (`OFP_MAX_TABLE_NAME_LEN` without its final zero).
const MAX_NAME_LEN: usize = 31;

impl MissPolicy {
    /// Name, as in commands.
    pub fn name(self) -> &'static str {
        name_of(MISSES, self)
    }
}

impl OverflowPolicy {
    /// Name, as in commands.
    pub fn name(self) -> &'static str {
        name_of(OVERFLOWS, self)
    }
}

/// Reads how a table is to be run; what is not said is as `old` says it is.
///
/// # Errors
/// Says where the text is wrong, and why.
pub fn parse_table_settings(
    text: &str,
    old: impl FnOnce(TableId) -> TableSettings,
) -> Result<(TableId, TableSettings), TextError> {
    let mut items = Vec::new();
    let mut table = None;
    let mut cursor = Cursor::new(Piece::whole(text));
    while let Some(name) = cursor.name()? {
        let form = cursor.form()?;
        if name.text == "table" {
            let text = form.value(name)?;
            let id = TableId::new(value::integer(text)?);
            table = Some(id.map_err(|error| text.error(error.to_string()))?);
        } else {
            items.push((name, form));
        }
    }
    let table = table.ok_or_else(|| Piece::whole("").error("say which table: `table=0`"))?;
    let mut settings = old(table);
    items.into_iter().try_for_each(|(name, form)| item(&mut settings, name, form))?;
    Ok((table, settings))
}

fn item(settings: &mut TableSettings, name: Piece<'_>, form: Form<'_>) -> Result<(), TextError> {
    match name.text {
        "name" => {
            let text = match form {
                // No name any more.
                Form::Value(text) => text,
                form => form.any(name)?,
            };
            let is_well_formed = text.text.len() <= MAX_NAME_LEN
                && text.text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
            if !is_well_formed {
                return Err(text.error(format!("a name is at most {MAX_NAME_LEN} of a-z A-Z 0-9 . _ -")));
            }
            settings.name = text.text.to_owned();
        }
        "miss" => settings.miss = named(form.value(name)?, MISSES)?,
        "overflow" => settings.overflow = named(form.value(name)?, OVERFLOWS)?,
        "max_rules" => {
            let text = form.value(name)?;
            settings.max_rules = if text.text == "any" { None } else { Some(value::integer(text)?) };
        }
        text => {
            return Err(name.misspelt(format!("a table's settings have no `{text}`"), ITEMS.iter().copied()));
        }
    }
    Ok(())
}

/// Prints how a table is run so that [`parse_table_settings`] reads the same.
pub fn print_table_settings(table: TableId, settings: &TableSettings) -> String {
    let TableSettings { name, miss, max_rules, overflow } = settings;
    let mut text = format!("table={table}");
    if !name.is_empty() {
        text += &format!(",name={name}");
    }
    text += &format!(",miss={}", miss.name());
    if let Some(max) = max_rules {
        text += &format!(",max_rules={max}");
    }
    format!("{text},overflow={}", overflow.name())
}

fn named<T: Copy>(text: Piece<'_>, names: &[(&'static str, T)]) -> Result<T, TextError> {
    let text = text.trim();
    let found = names.iter().find(|(name, _)| *name == text.text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let all: Vec<_> = names.iter().map(|(name, _)| *name).collect();
        text.misspelt(format!("expected one of {}", all.join(", ")), all)
    })
}

fn name_of<T: Copy + PartialEq>(names: &[(&'static str, T)], value: T) -> &'static str {
    names.iter().find(|(_, known)| *known == value).map_or("", |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(TableId, TableSettings), TextError> {
        parse_table_settings(text, |_| TableSettings { max_rules: Some(7), ..TableSettings::default() })
    }

    #[test]
    fn settings_read_as_they_print() {
        let (table, settings) = read("table=3,name=acl.1,miss=continue,overflow=evict").unwrap();
        let text = "table=3,name=acl.1,miss=continue,max_rules=7,overflow=evict";
        assert_eq!(print_table_settings(table, &settings), text);
        assert_eq!(read(text).unwrap(), (table, settings));
        assert_eq!(read("table=3,name=,max_rules=7").unwrap().1.name, "");
        assert_eq!(read("table=3,max_rules=any").unwrap().1, TableSettings::default());
    }

    #[test]
    fn mistakes_have_a_place() {
        let said = |text: &str| read(text).unwrap_err().to_string();
        assert_eq!(
            said("table=1,mis=drop"),
            "character 9: a table's settings have no `mis`; did you mean `miss`?"
        );
        assert_eq!(
            said("table=1,miss=contniue"),
            "character 14: expected one of drop, continue, controller; did you mean `continue`?"
        );
        for text in ["miss=drop", "table=255", "table=1,name=a b/c", "table=1,max_rules=-1"] {
            assert!(read(text).is_err(), "{text} was taken");
        }
    }
}
