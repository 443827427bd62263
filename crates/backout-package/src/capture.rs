//! `capture:` of a `run` step as written: which databases and roots are compared. Never looks at a site.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

use crate::field::{Located, Text};

/// `capture:` as written: `all`, or lists of names.
#[derive(Clone, Debug)]
pub enum CaptureFile {
    All,
    Some(CaptureLists),
}

/// Databases and roots by the site's names.
#[derive(Clone, Debug, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CaptureLists {
    /// The databases whose rows and definitions are captured; none if left out.
    #[serde(default)]
    pub databases: Vec<Located<Text>>,
    /// The roots whose files are captured; none if left out.
    #[serde(default)]
    pub roots: Vec<Located<Text>>,
}

impl<'de> Deserialize<'de> for CaptureFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = CaptureFile;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`all`, or a mapping with `databases` and `roots`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<CaptureFile, E> {
                match text {
                    "all" => Ok(CaptureFile::All),
                    _ => Err(E::unknown_variant(text, &["all"])),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<CaptureFile, A::Error> {
                CaptureLists::deserialize(de::value::MapAccessDeserializer::new(map)).map(CaptureFile::Some)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl JsonSchema for CaptureFile {
    fn schema_name() -> Cow<'static, str> {
        "Capture".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "What the command changes there is captured and so can be undone: `all` databases and \
                roots of the site, or some by their names.",
            "anyOf": [{ "const": "all" }, generator.subschema_for::<CaptureLists>()]
        })
    }
}
