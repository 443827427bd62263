//! A YAML file as a tree of nodes that know their places. Scalars keep the text they were written with.
//!
//! Never resolves a scalar's type (`1.10` stays `1.10`), never merges (`<<`), and is bounded whatever the file holds.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::rc::Rc;

use granit_parser::{Event, Parser, ScalarStyle, Span, Tag};

use crate::error::{PackageError, Place};

/// The largest file that is read, in bytes.
pub const MAX_BYTES: u64 = 8 << 20;
/// The most nodes a file may have once its aliases are put in: keeps "a billion laughs" small.
const MAX_NODES: usize = 500_000;
/// The most text a file may have once its aliases are put in, in bytes.
const MAX_TEXT: usize = 2 * MAX_BYTES as usize;
/// The deepest nesting.
const MAX_DEPTH: usize = 64;

/// Line and column, from 1; the column in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spot {
    pub line: u32,
    pub column: u32,
}

impl Spot {
    pub fn in_file(self, file: &Path) -> Place {
        Place { file: file.to_owned(), line: self.line, column: self.column }
    }
}

/// One value and where it begins.
#[derive(Clone, Debug)]
pub struct Node {
    pub spot: Spot,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub enum Value {
    /// `plain`: written without quotes, so that it may be a number, a truth value or nothing.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Clone, Debug)]
pub struct Key {
    pub spot: Spot,
    pub text: String,
}

impl Node {
    /// True for what YAML reads as null: nothing at all, `~`, `null`.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    fn depth(&self) -> usize {
        match &self.value {
            Value::Scalar { .. } => 1,
            Value::List(items) => 1 + items.iter().map(Node::depth).max().unwrap_or(0),
            Value::Map(entries) => 1 + entries.iter().map(|(_, node)| node.depth()).max().unwrap_or(0),
        }
    }

    /// Nodes and bytes of text.
    fn size(&self) -> (usize, usize) {
        let add = |(n, b): (usize, usize), (m, c): (usize, usize)| (n + m, b + c);
        match &self.value {
            Value::Scalar { text, .. } => (1, text.len()),
            Value::List(items) => items.iter().map(Node::size).fold((1, 0), add),
            Value::Map(entries) => {
                entries.iter().map(|(key, node)| add((1, key.text.len()), node.size())).fold((1, 0), add)
            }
        }
    }
}

/// Reads a file that a person wrote; `shown` is its name in errors.
pub fn read(file: &Path, shown: &Path) -> Result<Node, PackageError> {
    let text = read_text(file, shown)?;
    parse(&text, shown)
}

/// Reads text, with clear words for all that is not text.
fn read_text(file: &Path, shown: &Path) -> Result<String, PackageError> {
    // Looked at before it is opened: opening a fifo would wait for ever.
    let metadata = fs::metadata(file).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => PackageError::unusable(shown, "there is no such file"),
        _ => PackageError::read(shown, e),
    })?;
    if metadata.is_dir() {
        return Err(PackageError::unusable(shown, "is a directory, not a file"));
    }
    if !metadata.is_file() {
        return Err(PackageError::unusable(shown, "is not a regular file"));
    }
    let mut bytes = Vec::new();
    let opened = File::open(file).map_err(|e| PackageError::read(shown, e))?;
    opened.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| PackageError::read(shown, e))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(PackageError::unusable(shown, format!("is larger than {} MiB", MAX_BYTES >> 20)));
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        let good = e.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(&e.as_bytes()[..good]).into_owned();
        wrong(shown, spot_after(&before), "is not UTF-8 text", None)
    })?;
    if let Some(at) = text.find('\0') {
        return Err(wrong(shown, spot_after(&text[..at]), "is not text: it holds a NUL byte", None));
    }
    Ok(text)
}

/// The place that follows `text`.
fn spot_after(text: &str) -> Spot {
    let line = text.matches('\n').count() + 1;
    let column = text.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    Spot { line: narrow(line), column: narrow(column) }
}

fn narrow(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn wrong(shown: &Path, spot: Spot, what: impl Into<String>, hint: Option<&str>) -> PackageError {
    PackageError::Wrong { place: spot.in_file(shown), what: what.into(), hint: hint.map(str::to_owned) }
}

/// A list or mapping that is not closed yet.
struct Open {
    spot: Spot,
    anchor: usize,
    value: Building,
}

enum Building {
    List(Vec<Node>),
    Map { entries: Vec<(Key, Node)>, seen: HashMap<String, u32>, key: Option<Key> },
}

/// Reads the one document in `text`.
pub fn parse(text: &str, shown: &Path) -> Result<Node, PackageError> {
    let mut builder = Builder { shown, open: Vec::new(), anchors: HashMap::new(), root: None, nodes: 0, text: 0 };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|e| {
            let spot = Spot { line: narrow(e.marker().line()), column: narrow(e.marker().col() + 1) };
            wrong(shown, spot, format!("is not valid YAML: {}", e.info()), None)
        })?;
        builder.take(event, span)?;
    }
    builder.root.ok_or_else(|| PackageError::unusable(shown, "is empty"))
}

struct Builder<'a> {
    shown: &'a Path,
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Node>>,
    root: Option<Node>,
    nodes: usize,
    text: usize,
}

impl Builder<'_> {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), PackageError> {
        let spot = Spot { line: narrow(span.start.line()), column: narrow(span.start.col() + 1) };
        match event {
            Event::DocumentStart(..) if self.root.is_some() => Err(wrong(
                self.shown,
                spot,
                "holds a second document",
                Some("one file, one document: remove the `---`"),
            )),
            Event::Scalar(text, style, anchor, tag) => {
                self.check_tag(tag.as_deref(), spot)?;
                let is_text = tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("str"));
                let plain = matches!(style, ScalarStyle::Plain) && !is_text;
                self.place(Node { spot, value: Value::Scalar { text: text.into_owned(), plain } }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.check_tag(tag.as_deref(), spot)?;
                self.begin(spot, anchor, Building::List(Vec::new()))
            }
            Event::MappingStart(_, anchor, tag) => {
                self.check_tag(tag.as_deref(), spot)?;
                self.begin(spot, anchor, Building::Map { entries: Vec::new(), seen: HashMap::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { spot, anchor, value }) => {
                    let value = match value {
                        Building::List(items) => Value::List(items),
                        Building::Map { entries, .. } => Value::Map(entries),
                    };
                    self.place(Node { spot, value }, anchor)
                }
                None => Ok(()),
            },
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some(node) => {
                    let (nodes, text) = node.size();
                    // Counted before it is copied: the copy is what a bomb is after.
                    self.count(nodes, text, spot)?;
                    if self.open.len() + node.depth() > MAX_DEPTH {
                        return Err(too_deep(self.shown, spot));
                    }
                    let copy = Node { spot, value: node.value.clone() };
                    self.place(copy, 0)
                }
                None => Err(wrong(self.shown, spot, "this alias refers to the value it stands in", None)),
            },
            _ => Ok(()),
        }
    }

    fn check_tag(&self, tag: Option<&Tag>, spot: Spot) -> Result<(), PackageError> {
        let known = ["str", "int", "float", "bool", "null", "seq", "map"];
        match tag {
            Some(tag) if !known.iter().any(|name| tag.is_yaml_core_schema_tag(name)) => {
                Err(wrong(self.shown, spot, "has a tag (`!…`), which means nothing here", Some("remove the tag")))
            }
            _ => Ok(()),
        }
    }

    fn begin(&mut self, spot: Spot, anchor: usize, value: Building) -> Result<(), PackageError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep(self.shown, spot));
        }
        self.open.push(Open { spot, anchor, value });
        Ok(())
    }

    fn count(&mut self, nodes: usize, text: usize, spot: Spot) -> Result<(), PackageError> {
        self.nodes = self.nodes.saturating_add(nodes);
        self.text = self.text.saturating_add(text);
        if self.nodes > MAX_NODES || self.text > MAX_TEXT {
            return Err(wrong(
                self.shown,
                spot,
                "the file holds too many values, aliases (`*name`) counted in full",
                None,
            ));
        }
        Ok(())
    }

    /// Puts a finished node where it belongs: into the list or mapping that is open, or at the root.
    fn place(&mut self, node: Node, anchor: usize) -> Result<(), PackageError> {
        match &node.value {
            Value::Scalar { text, .. } => self.count(1, text.len(), node.spot)?,
            Value::List(_) | Value::Map(_) => self.count(1, 0, node.spot)?,
        }
        if anchor != 0 {
            let (nodes, text) = node.size();
            self.count(nodes, text, node.spot)?;
            self.anchors.insert(anchor, Rc::new(node.clone()));
        }
        match self.open.last_mut().map(|open| &mut open.value) {
            None => self.root = Some(node),
            Some(Building::List(items)) => items.push(node),
            Some(Building::Map { entries, seen, key }) => match key.take() {
                Some(key) => entries.push((key, node)),
                None => *key = Some(new_key(self.shown, node, seen)?),
            },
        }
        Ok(())
    }
}

fn new_key(shown: &Path, node: Node, seen: &mut HashMap<String, u32>) -> Result<Key, PackageError> {
    let Value::Scalar { text, plain } = node.value else {
        return Err(wrong(shown, node.spot, "a key must be a word, not a list or a mapping", None));
    };
    if plain && text == "<<" {
        return Err(wrong(shown, node.spot, "merge keys (`<<`) are not supported", Some("write the keys out")));
    }
    if let Some(line) = seen.insert(text.clone(), node.spot.line) {
        return Err(wrong(shown, node.spot, format!("the key `{text}` is given twice, first on line {line}"), None));
    }
    Ok(Key { spot: node.spot, text })
}

fn too_deep(shown: &Path, spot: Spot) -> PackageError {
    wrong(shown, spot, format!("is nested more than {MAX_DEPTH} levels deep"), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text, Path::new("f.yaml")).expect_err("refused").to_string()
    }

    #[test]
    fn scalars_keep_their_text_and_place() {
        let root = parse("a: 1.10\nb: [0x10, \"é\", ~]\n", Path::new("f")).unwrap();
        let Value::Map(entries) = root.value else { panic!("a mapping") };
        let Value::Scalar { text, plain: true } = &entries[0].1.value else { panic!("a scalar") };
        assert_eq!((text.as_str(), entries[0].1.spot), ("1.10", Spot { line: 1, column: 4 }));
        let Value::List(items) = &entries[1].1.value else { panic!("a list") };
        assert!(matches!(&items[0].value, Value::Scalar { text, .. } if text == "0x10"));
        assert_eq!(items[2].spot, Spot { line: 2, column: 16 });
        assert!(items[2].is_null());
    }

    #[test]
    fn line_ends_and_marks_of_other_systems_are_no_content() {
        let root = parse("\u{feff}a: 1\r\nb: x y\r\n", Path::new("f")).unwrap();
        let Value::Map(entries) = root.value else { panic!("a mapping") };
        assert_eq!(entries[0].0.text, "a");
        assert_eq!(entries[1].0.spot, Spot { line: 2, column: 1 });
        assert!(matches!(&entries[1].1.value, Value::Scalar { text, .. } if text == "x y"));
    }

    #[test]
    fn a_key_given_twice_is_refused_at_its_place() {
        assert_eq!(error("a: 1\nb: {c: 1,\n  c: 2}\n"), "f.yaml:3:3: the key `c` is given twice, first on line 2");
        assert_eq!(error("a: 1\n\"a\": 1\n"), "f.yaml:2:1: the key `a` is given twice, first on line 1");
    }

    #[test]
    fn what_is_not_one_plain_document_is_refused() {
        assert_eq!(error(""), "f.yaml: is empty");
        assert_eq!(error("# only this\n"), "f.yaml: is empty");
        assert!(error("a: 1\n---\nb: 1\n").starts_with("f.yaml:2:1: holds a second document"));
        assert!(error("a: !x 1\n").starts_with("f.yaml:1:"), "{}", error("a: !x 1\n"));
        assert!(error("[a]: 1\n").contains("a key must be a word"));
        assert!(error("x: &x {a: 1}\ny:\n  <<: *x\n").starts_with("f.yaml:3:3: merge keys"));
        assert!(error("a: [1\nb: 2").contains("is not valid YAML"));
        assert!(error("a: *nothing\n").contains("is not valid YAML"));
        assert!(error("a: &a [*a]\n").starts_with("f.yaml:1:8: this alias refers to"), "{}", error("a: &a [*a]\n"));
    }

    #[test]
    fn aliases_serve_but_a_bomb_is_bounded() {
        let root = parse("a: &a [1, 2]\nb: *a\n", Path::new("f")).unwrap();
        assert_eq!(root.size().0, 9);
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..20 {
            let aliases = vec![format!("*a{}", i - 1); 10].join(", ");
            bomb += &format!("a{i}: &a{i} [{aliases}]\n");
        }
        assert!(error(&bomb).contains("too many values"));
        let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), vec!["*a"; 100].join(", "));
        assert!(error(&long).contains("too many values"));
        // Neither anchored again nor text: many copies of one list.
        let many = format!("a: &a [{}]\nb: [{}]\n", vec!["x"; 1000].join(", "), vec!["*a"; 1000].join(", "));
        assert!(error(&many).contains("too many values"));
    }

    #[test]
    fn nesting_is_bounded() {
        assert!(error(&"[".repeat(100_000)).starts_with("f.yaml:1:"));
        assert!(error(&"- ".repeat(100_000)).starts_with("f.yaml:1:"));
        let mut deep = "a0: &a0 [x]\n".to_owned();
        for i in 1..100 {
            deep += &format!("a{i}: &a{i} [*a{}]\n", i - 1);
        }
        assert!(error(&deep).contains("levels deep"));
    }
}
