//! From a tree of YAML nodes to the types of a file, by serde: every error gets the place of the node it is about.
//!
//! Never guesses: a text field takes a scalar's source text, a number or truth value must be written as one.

use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use crate::error::PackageError;
use crate::nearest::nearest;
use crate::yaml::{Key, Node, Spot, Value};

/// The name under which [`crate::field::Located`] asks for the place, and its fields.
pub const LOCATED: &str = "$backout::Located";
pub const LOCATED_FIELDS: &[&str] = &["line", "column", "value"];

/// Reads `node` as a `T`; `shown` is the file's name in errors.
pub fn decode<T: DeserializeOwned>(node: &Node, shown: &Path) -> Result<T, PackageError> {
    T::deserialize(NodeDeserializer(node)).map_err(|e| {
        let spot = e.spot.unwrap_or(node.spot);
        PackageError::Wrong { place: spot.in_file(shown), what: e.what, hint: e.hint }
    })
}

/// What is wrong, and where as far as that is known yet.
#[derive(Debug)]
pub struct DecodeError {
    spot: Option<Spot>,
    what: String,
    hint: Option<String>,
}

impl DecodeError {
    fn new(what: String) -> Self {
        Self { spot: None, what, hint: None }
    }

    /// The innermost node is the one that an error is about.
    fn at(mut self, spot: Spot) -> Self {
        self.spot.get_or_insert(spot);
        self
    }

    fn with_hint(mut self, hint: &str) -> Self {
        self.hint = Some(hint.to_owned());
        self
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for DecodeError {}

/// Separates what is wrong from the way out in the text of a custom error.
pub const HINT: &str = "\u{1}";

impl de::Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        let text = message.to_string();
        match text.split_once(HINT) {
            Some((what, hint)) => Self::new(what.to_owned()).with_hint(hint),
            None => Self::new(text),
        }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::unknown("key", field, expected)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::unknown("value", variant, expected)
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(format!("the key `{field}` is missing"))
    }
}

impl DecodeError {
    fn unknown(kind: &str, word: &str, expected: &'static [&'static str]) -> Self {
        let list = expected.iter().map(|e| format!("`{e}`")).collect::<Vec<_>>().join(", ");
        let error = match nearest(word, expected) {
            Some(close) => Self::new(format!("unknown {kind} `{word}`; did you mean `{close}`?")),
            None => Self::new(format!("unknown {kind} `{word}`")),
        };
        error.with_hint(&format!("known here: {list}"))
    }
}

#[derive(Clone, Copy)]
struct NodeDeserializer<'a>(&'a Node);

impl<'a> NodeDeserializer<'a> {
    fn found(&self) -> &'static str {
        match &self.0.value {
            _ if self.0.is_null() => "nothing",
            Value::Scalar { .. } => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    fn fail<T>(&self, expected: &str) -> Result<T, DecodeError> {
        Err(DecodeError::new(format!("expected {expected}, found {}", self.found())).at(self.0.spot))
    }

    fn text(&self, expected: &str) -> Result<&'a str, DecodeError> {
        match &self.0.value {
            Value::Scalar { text, .. } if !self.0.is_null() => Ok(text),
            _ => self.fail(expected),
        }
    }

    /// A plain scalar that reads as `T`.
    fn number<T: std::str::FromStr>(&self, expected: &str) -> Result<T, DecodeError> {
        let text = self.text(expected)?;
        let plain = matches!(&self.0.value, Value::Scalar { plain: true, .. });
        text.parse()
            .ok()
            .filter(|_| plain)
            .ok_or_else(|| DecodeError::new(format!("expected {expected}, found `{text}`")).at(self.0.spot))
    }
}

/// Runs a visitor and gives its error the node's place unless it has one.
macro_rules! placed {
    ($self:ident, $result:expr) => {
        $result.map_err(|e: DecodeError| e.at($self.0.spot))
    };
}

macro_rules! numbers {
    ($($method:ident $visit:ident $type:ty, $words:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            let number: $type = self.number($words)?;
            placed!(self, visitor.$visit(number))
        }
    )*};
}

impl<'de> Deserializer<'de> for NodeDeserializer<'de> {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.0.value {
            _ if self.0.is_null() => placed!(self, visitor.visit_unit()),
            Value::Scalar { text, .. } => placed!(self, visitor.visit_str(text)),
            Value::List(items) => placed!(self, visitor.visit_seq(Items(items.iter()))),
            Value::Map(entries) => placed!(self, visitor.visit_map(Entries { rest: entries.iter(), value: None })),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let text = self.text("text")?;
        placed!(self, visitor.visit_str(text))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let yes = match &self.0.value {
            Value::Scalar { text, plain: true } => match text.as_str() {
                "true" | "True" | "TRUE" => true,
                "false" | "False" | "FALSE" => false,
                _ => return Err(DecodeError::new(format!("expected true or false, found `{text}`")).at(self.0.spot)),
            },
            _ => return self.fail("true or false"),
        };
        placed!(self, visitor.visit_bool(yes))
    }

    numbers! {
        deserialize_u32 visit_u32 u32, "a whole number";
        deserialize_u64 visit_u64 u64, "a whole number";
        deserialize_f64 visit_f64 f64, "a number";
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.0.is_null() { placed!(self, visitor.visit_none()) } else { placed!(self, visitor.visit_some(self)) }
    }

    /// A key with nothing behind it is an empty list: all of its entries are commented out.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.0.value {
            Value::List(items) => placed!(self, visitor.visit_seq(Items(items.iter()))),
            _ if self.0.is_null() => placed!(self, visitor.visit_seq(Items([].iter()))),
            _ => self.fail("a list"),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.0.value {
            Value::Map(entries) => placed!(self, visitor.visit_map(Entries { rest: entries.iter(), value: None })),
            _ if self.0.is_null() => placed!(self, visitor.visit_map(Entries { rest: [].iter(), value: None })),
            _ => self.fail("a mapping"),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        if name == LOCATED {
            return visitor.visit_map(LocatedAccess { spot: self.0.spot, value: self, next: 0 });
        }
        match &self.0.value {
            Value::Map(entries) => placed!(self, visitor.visit_map(Entries { rest: entries.iter(), value: None })),
            _ => {
                let keys = fields.iter().take(4).map(|f| format!("`{f}`")).collect::<Vec<_>>().join(", ");
                self.fail(&format!("a mapping with keys such as {keys}"))
            }
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        placed!(self, visitor.visit_newtype_struct(self))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let text = self.text("one word")?;
        placed!(self, visitor.visit_enum(text.into_deserializer()))
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u128 f32 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

struct Items<'a>(std::slice::Iter<'a, Node>);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, DecodeError> {
        self.0.next().map(|node| seed.deserialize(NodeDeserializer(node))).transpose()
    }
}

struct Entries<'a> {
    rest: std::slice::Iter<'a, (Key, Node)>,
    value: Option<&'a (Key, Node)>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DecodeError> {
        self.value = self.rest.next();
        match self.value {
            Some((key, _)) => seed.deserialize(KeyDeserializer(key)).map(Some).map_err(|e| e.at(key.spot)),
            None => Ok(None),
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, DecodeError> {
        let Some((_, node)) = self.value.take() else {
            return Err(DecodeError::new("a value was asked for before its key".to_owned()));
        };
        seed.deserialize(NodeDeserializer(node)).map_err(|e| e.at(node.spot))
    }
}

/// A key is text, with its place where that is asked for.
#[derive(Clone, Copy)]
struct KeyDeserializer<'a>(&'a Key);

impl<'de> Deserializer<'de> for KeyDeserializer<'de> {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        placed!(self, visitor.visit_str(&self.0.text))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        if name == LOCATED {
            return visitor.visit_map(LocatedAccess { spot: self.0.spot, value: self, next: 0 });
        }
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// Hands out line, column and the value itself, in this order.
struct LocatedAccess<D> {
    spot: Spot,
    value: D,
    next: usize,
}

impl<'de, D: Deserializer<'de, Error = DecodeError> + Copy> MapAccess<'de> for LocatedAccess<D> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DecodeError> {
        let Some(name) = LOCATED_FIELDS.get(self.next) else { return Ok(None) };
        self.next += 1;
        seed.deserialize(de::value::StrDeserializer::<DecodeError>::new(name)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, DecodeError> {
        match self.next {
            1 => seed.deserialize(de::value::U32Deserializer::new(self.spot.line)),
            2 => seed.deserialize(de::value::U32Deserializer::new(self.spot.column)),
            _ => seed.deserialize(self.value).map_err(|e| e.at(self.spot)),
        }
    }
}

/// Collects a mapping into pairs, in the order of the file.
pub struct Pairs<K, V>(pub PhantomData<(K, V)>);

impl<'de, K: de::Deserialize<'de>, V: de::Deserialize<'de>> Visitor<'de> for Pairs<K, V> {
    type Value = Vec<(K, V)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping of names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(pairs)
    }
}
