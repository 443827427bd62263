//! The kinds of fields both files are made of: text with its place, commands, durations, keys of later versions.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::decode::{HINT, LOCATED, LOCATED_FIELDS, Pairs};
use crate::duration;
use crate::yaml::Spot;

/// A value and where it stands in its file.
#[derive(Clone, Debug)]
pub struct Located<T> {
    pub spot: Spot,
    pub value: T,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Located<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<T> {
            type Value = Located<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value with its place")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Located<T>, A::Error> {
                let mut number = || -> Result<u32, A::Error> {
                    map.next_entry::<String, u32>()?.map(|(_, n)| n).ok_or_else(|| de::Error::custom("no place"))
                };
                let spot = Spot { line: number()?, column: number()? };
                let (_, value) = map.next_entry::<String, T>()?.ok_or_else(|| de::Error::custom("no value"))?;
                Ok(Located { spot, value })
            }
        }
        deserializer.deserialize_struct(LOCATED, LOCATED_FIELDS, Reader(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Located<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// Any scalar, kept as the text that was written: `1.10` is not `1.1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(pub String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Text)
    }
}

impl JsonSchema for Text {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "number", "boolean"] })
    }
}

/// A length of time such as `1h30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        duration::parse(&text).map(Span).map_err(de::Error::custom)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A length of time: `500ms`, `10s`, `5m`, `1h30m`, `2d`.",
            "type": "string",
            "pattern": "^([0-9]+(d|h|m|s|ms))+$"
        })
    }
}

/// A program and its arguments. Never empty, no NUL in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argv(pub Vec<String>);

impl Argv {
    fn checked<E: de::Error>(argv: Vec<String>) -> Result<Self, E> {
        if argv.first().is_none_or(String::is_empty) {
            return Err(E::custom("names no program"));
        }
        if argv.iter().any(|a| a.contains('\0')) {
            return Err(E::custom("a command's argument can't hold a NUL character"));
        }
        Ok(Argv(argv))
    }
}

fn not_a_list<E: de::Error>(text: &str) -> E {
    let words = text.split_whitespace().collect::<Vec<_>>().join(", ");
    E::custom(format!(
        "a command is a list of words, found a single text{HINT}commands run without a shell: [{words}], or [sh, -c, \"…\"]"
    ))
}

fn words<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Vec<String>, A::Error> {
    let mut argv = Vec::new();
    while let Some(word) = list.next_element::<String>()? {
        argv.push(word);
    }
    Ok(argv)
}

impl<'de> Deserialize<'de> for Argv {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Argv;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of a program and its arguments")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Argv, E> {
                Err(not_a_list(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Argv, A::Error> {
                Argv::checked(words(list)?)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl JsonSchema for Argv {
    fn schema_name() -> Cow<'static, str> {
        "Command".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A program and its arguments, run without a shell in the directory of the file. \
                `{root.NAME}` and `{database.NAME}` are filled in.",
            "type": "array",
            "minItems": 1,
            "items": generator.subschema_for::<Text>()
        })
    }
}

/// `undo:` of a step: a script's path, a command, or `none`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undo {
    None,
    Path(String),
    Command(Argv),
}

impl<'de> Deserialize<'de> for Undo {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Undo;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a script, a command as a list, or none")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Undo, E> {
                Ok(if text == "none" { Undo::None } else { Undo::Path(text.to_owned()) })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Undo, A::Error> {
                Argv::checked(words(list)?).map(Undo::Command)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl JsonSchema for Undo {
    fn schema_name() -> Cow<'static, str> {
        "Undo".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "How the step is taken back: for `sql` another script, for `run` another command, \
                or `none` together with `because`.",
            "anyOf": [{ "type": "string" }, generator.subschema_for::<Argv>()]
        })
    }
}

/// A mapping from names, in the order of the file.
#[derive(Clone, Debug)]
pub struct Named<T>(pub Vec<(Located<String>, T)>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Pairs(PhantomData)).map(Named)
    }
}

impl<T: JsonSchema> JsonSchema for Named<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Named{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "propertyNames": { "pattern": "^[a-z0-9][a-z0-9_-]*$" },
            "additionalProperties": generator.subschema_for::<T>()
        })
    }
}
