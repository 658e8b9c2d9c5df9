//! YAML text → a tree in which every key and value knows its line and keeps its text as it was written (`1.10` stays
//! `1.10`). It judges nothing but YAML itself, and never quotes the source: an operator may have pasted a secret.

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::Spanned;
use serde_yaml::options::DuplicateKeyPolicy;

/// A value and the line on which it begins.
#[derive(Debug)]
pub(super) struct Node {
    /// 1-based.
    pub(super) line: u64,
    /// What stands there.
    pub(super) value: Value,
}

/// What can stand in a YAML file.
#[derive(Debug)]
pub(super) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// A scalar, as written, without its quotes.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order of the file, duplicate keys and all.
    Map(Vec<(Key, Node)>),
}

impl Value {
    /// What to call it in a message. Never its content.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Text(_) => "a single value",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// A key and its line.
#[derive(Debug)]
pub(super) struct Key {
    /// 1-based.
    pub(super) line: u64,
    /// As written.
    pub(super) text: String,
}

/// Where the text stops being YAML, and why.
#[derive(Debug)]
pub(super) struct Broken {
    /// 1-based; 0 where the parser names none.
    pub(super) line: u64,
    /// 1-based; 0 where the parser names none.
    pub(super) column: u64,
    /// Without a line of the source.
    pub(super) why: String,
}

/// Reads one document.
pub(super) fn parse(text: &str) -> Result<Node, Broken> {
    // The parser counts from behind a byte-order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let options = serde_yaml::options! {
        // Duplicates come through, so that all of them are reported at once and none is quoted.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        // A snippet would print the lines around the mistake, and a secret may stand there.
        with_snippet: false,
        budget: serde_yaml::budget! { max_depth: 32, max_nodes: 100_000 },
    };
    match serde_yaml::from_str_with_options::<Spanned<Raw>>(text, options) {
        Ok(raw) => Ok(node(raw, text)),
        Err(error) => {
            let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
            Err(Broken { line, column, why: why(&error) })
        }
    }
}

/// The parser's reason, by kind: only the scanner's own sentences are passed on, for they quote one character at most.
fn why(error: &serde_yaml::Error) -> String {
    use serde_yaml::Error;
    match error {
        Error::Message { msg, .. } | Error::ExternalMessage { msg, .. } if msg.contains("alias") => {
            format!("{msg}; a value that begins with `*` or `&` stands in quotes")
        }
        Error::Message { msg, .. } | Error::ExternalMessage { msg, .. } => msg.clone(),
        Error::Eof { .. } => "the file ends in the middle of something".into(),
        Error::MultipleDocuments { .. } => "a second YAML document begins; one file holds one".into(),
        Error::UnknownAnchor { .. } => {
            "an alias refers to an anchor that is not there; a value that begins with `*` stands in quotes".into()
        }
        Error::MergeValueNotMapOrSeqOfMaps { .. } => "`<<` takes a mapping or a list of mappings".into(),
        Error::Budget { .. } => "the file is too deep or too large".into(),
        Error::AliasError { error, .. } => why(error),
        Error::WithSnippet { error, .. } => why(error),
        _ => "not readable as YAML (a key or value of a kind that has no place here)".into(),
    }
}

fn node(raw: Spanned<Raw>, source: &str) -> Node {
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Text(text) => Value::Text(text),
        Raw::Typed(parsed) => {
            let span = raw.defined.span();
            let written = span.byte_offset().zip(span.byte_len()).and_then(|(from, length)| {
                let from = usize::try_from(from).ok()?;
                let to = from.checked_add(usize::try_from(length).ok()?)?;
                source.get(from..to)
            });
            Value::Text(written.map_or(parsed, |text| text.trim().to_string()))
        }
        Raw::List(items) => Value::List(items.into_iter().map(|item| node(item, source)).collect()),
        Raw::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| (Key { line: key.referenced.line(), text: key.value }, node(value, source)))
                .collect(),
        ),
    };
    Node { line: raw.referenced.line(), value }
}

/// What the parser makes of a node: it has types of its own for plain scalars.
enum Raw {
    Null,
    Text(String),
    /// A boolean or number: what it was read as, in case its place in the source is not known.
    Typed(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value, a list or a mapping")
    }
    fn visit_unit<E: de::Error>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }
    fn visit_none<E: de::Error>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }
    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }
    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }
    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }
    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }
    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }
    fn visit_str<E: de::Error>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_string()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(node: &Node) -> String {
        match &node.value {
            Value::Null => format!("{}:~", node.line),
            Value::Text(text) => format!("{}:{text:?}", node.line),
            Value::List(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" ")),
            Value::Map(entries) => {
                let entry = |(key, node): &(Key, Node)| format!("{}:{}={}", key.line, key.text, show(node));
                format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(" "))
            }
        }
    }

    #[test]
    fn every_scalar_keeps_its_text_and_its_line() {
        let check = |yaml: &str, expect: &str| assert_eq!(show(&parse(yaml).unwrap()), expect, "{yaml}");
        check("", "1:~");
        check("a: 1.10\nb: 0600\n", "{1:a=1:\"1.10\" 2:b=2:\"0600\"}");
        check("a: no\nb: True\nc: 1e5 # x\n", "{1:a=1:\"no\" 2:b=2:\"True\" 3:c=3:\"1e5\"}");
        check("\u{feff}é: ü\nb: 0x1F\n", "{1:é=1:\"ü\" 2:b=2:\"0x1F\"}");
        check("a: {b: 10%, c: [1_000, '2', ~]}\n", "{1:a={1:b=1:\"10%\" 1:c=[1:\"1_000\" 1:\"2\" 1:~]}}");
        check("a:\n  b:\n\n  c: -5\n", "{1:a={2:b=2:~ 4:c=4:\"-5\"}}");
        check("a: &x 1.50\nb: *x\n", "{1:a=1:\"1.50\" 2:b=2:\"1.50\"}");
        check("a: &x {k: 007}\nb:\n  <<: *x\n  l: 2\n", "{1:a={1:k=1:\"007\"} 2:b={4:l=4:\"2\" 3:k=3:\"007\"}}");
        check("a: 1\na: 2\n", "{1:a=1:\"1\" 2:a=2:\"2\"}");
        check("1: x\ntrue: y\n", "{1:1=1:\"x\" 2:true=2:\"y\"}");
    }

    #[test]
    fn what_is_no_yaml_is_refused_with_its_line_and_without_its_text() {
        let secret = "Hunter2Hunter2";
        for (yaml, line) in [
            ("a: b\n c: Hunter2Hunter2\n", 2),
            ("a: [Hunter2Hunter2\nb: c\n", 2),
            ("a: 'Hunter2Hunter2\n", 0),
            ("a: \"Hunter2Hunter2\\q\"\n", 1),
            ("a: *Hunter2Hunter2\n", 1),
            ("a: !Hunter2Hunter2! x\n", 0),
            ("a: %Hunter2Hunter2\n", 1),
            ("a: @Hunter2Hunter2\n", 1),
            ("a: x\n---\nHunter2Hunter2: y\n", 3),
            ("? [Hunter2Hunter2]\n: y\n", 1),
            ("a: {Hunter2Hunter2: x: y}\n", 0),
            ("a: !!int Hunter2Hunter2\n", 1),
            ("a: !!binary Hunter2Hunter2*\n", 1),
            ("a:\n\t- Hunter2Hunter2\n", 0),
            ("<<: Hunter2Hunter2\n", 0),
        ] {
            let Err(broken) = parse(yaml) else {
                panic!("{yaml} was read");
            };
            println!("{yaml:?} {broken:?}");
            assert!(!broken.why.contains(secret), "{}", broken.why);
            assert!(!broken.why.is_empty());
            if line > 0 {
                assert_eq!(broken.line, line, "{yaml}: {}", broken.why);
            }
        }
    }

    #[test]
    fn a_file_that_is_too_deep_is_refused() {
        assert!(parse(&format!("a: {}{}\n", "[".repeat(5000), "]".repeat(5000))).is_err());
    }
}
