//! Maps in files: a key may stand only once, and a value may be left out where every
//! field of it may. Used with `#[serde(with = "section")]`.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, Error, IgnoredAny, MapAccess, Visitor, value::MapDeserializer},
    ser::Error as _,
};
use serde_norway::Value;

/// Things by their ids.
pub type Section<T> = BTreeMap<String, T>;

/// Writes a section as a map, each value without what need not be written.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<T, S>(section: &Section<T>, serializer: S) -> Result<S::Ok, S::Error>
where
    T: Serialize + DeserializeOwned + PartialEq,
    S: Serializer,
{
    let lean = |(key, value)| Ok((key, lean(value).map_err(S::Error::custom)?));
    serializer.collect_map(section.iter().map(lean).collect::<Result<Vec<_>, _>>()?)
}

/// The value without the keys that make no difference when it is read.
fn lean<T: Serialize + DeserializeOwned + PartialEq>(value: &T) -> Result<Value, serde_norway::Error> {
    let mut written = serde_norway::to_value(value)?;
    let Some(keys) = written.as_mapping().map(|map| map.keys().cloned().collect::<Vec<_>>()) else {
        return Ok(written);
    };
    for key in keys {
        let Some(map) = written.as_mapping() else { break };
        let mut less = map.clone();
        less.shift_remove(&key);
        let less = Value::Mapping(less);
        if serde_norway::from_value::<T>(less.clone()).is_ok_and(|read| read == *value) {
            written = less;
        }
    }
    Ok(written)
}

/// Reads a section: a map, or nothing at all.
///
/// # Errors
/// Those of the deserializer, and when a key stands twice.
pub fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Section<T>, D::Error> {
    deserializer.deserialize_any(SectionVisitor(PhantomData))
}

struct SectionVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for SectionVisitor<T> {
    type Value = Section<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Section::new())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut section = Section::new();
        while let Some(key) = map.next_key::<String>()? {
            if section.contains_key(&key) {
                // The value's place in the file is the best there is for the message.
                map.next_value::<IgnoredAny>()?;
                return Err(A::Error::custom(format_args!("{key:?} stands here twice")));
            }
            let value = match map.next_value::<Option<T>>()? {
                Some(value) => value,
                None => of_nothing(&key)?,
            };
            section.insert(key, value);
        }
        Ok(section)
    }
}

/// The value of `key:` with nothing behind it: that of an empty map.
fn of_nothing<'de, T: Deserialize<'de>, E: Error>(key: &str) -> Result<T, E> {
    let empty: [(String, String); 0] = [];
    T::deserialize(MapDeserializer::<_, E>::new(empty.into_iter()))
        .map_err(|error| E::custom(format_args!("{key:?} has no value: {error}")))
}
