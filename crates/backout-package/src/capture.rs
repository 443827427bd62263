//! `capture:` of a `run` step: which databases and roots are compared, as written and as run. Never looks at a site.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

use crate::error::PackageError;
use crate::field::{Located, Text};
use crate::load::Loader;
use crate::step::Capture;

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

/// Settles what a step says it captures.
pub fn settle(loader: &Loader<'_>, file: &Located<CaptureFile>) -> Result<Capture, PackageError> {
    let lists = match &file.value {
        CaptureFile::All => return Ok(Capture { databases: None, roots: None }),
        CaptureFile::Some(lists) => lists,
    };
    if lists.databases.is_empty() && lists.roots.is_empty() {
        let what = "`capture` names nothing: neither a database nor a root";
        return Err(loader.wrong_with(file.spot, what, "`capture: all` means every one of the site"));
    }
    let names = |list: &[Located<Text>]| -> Result<Option<Vec<String>>, PackageError> {
        let mut names: Vec<String> = Vec::with_capacity(list.len());
        for name in list {
            if names.contains(&name.value.0) {
                return Err(loader.wrong(name.spot, format!("`{}` is named twice", name.value.0)));
            }
            names.push(name.value.0.clone());
        }
        Ok(Some(names))
    };
    Ok(Capture { databases: names(&lists.databases)?, roots: names(&lists.roots)? })
}
