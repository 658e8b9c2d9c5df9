//! A mapping of the file, read key by key: unknown keys, duplicates and wrong kinds are reported here, once for all
//! rooms. A group may lie in layers: what a fleet does not say, `defaults` say.

use super::report::{At, Report};
use super::tree::{Key, Node, Value};

/// A mapping and, beneath it, those from which it takes what it does not say itself.
pub(super) struct Group<'a> {
    /// Where it stands; problems with a missing key are reported here.
    pub(super) at: At,
    layers: Vec<Layer<'a>>,
}

struct Layer<'a> {
    at: At,
    entries: &'a [(Key, Node)],
}

/// A value and where it stands.
#[derive(Clone)]
pub(super) struct Field<'a> {
    /// Its place.
    pub(super) at: At,
    /// What stands there.
    pub(super) node: &'a Node,
}

/// Whether a secret may stand where a message would quote.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Quote {
    /// Keys are named.
    Keys,
    /// Nothing is quoted.
    Nothing,
}

impl<'a> Group<'a> {
    /// Opens `field` as a mapping of these keys. Without a mapping there the group is empty, and that is reported.
    pub(super) fn open(report: &mut Report, field: &Field<'a>, known: &[&str], quote: Quote) -> Self {
        #[cfg(test)]
        asked::note(&field.at.path, known);
        let entries = field.map(report, quote).unwrap_or_default();
        for (key, _) in entries {
            if known.contains(&key.text.as_str()) {
                continue;
            }
            let list = known.join(", ");
            if quote == Quote::Nothing {
                report.problem(
                    &At { line: key.line, path: field.at.path.clone() },
                    format!("holds an unknown key, not shown here because it may be a secret; it takes {list}"),
                );
            } else {
                let hint = nearest(&key.text, known).map_or_else(String::new, |near| format!("; did you mean {near}?"));
                report.problem(&field.at.under(&key.text, key.line), format!("unknown key{hint} (known here: {list})"));
            }
        }
        Self { at: field.at.clone(), layers: vec![Layer { at: field.at.clone(), entries }] }
    }

    /// Lays this group over another, which says what this one does not.
    pub(super) fn over(mut self, base: Group<'a>) -> Self {
        self.layers.extend(base.layers);
        self
    }

    /// The value of a key, from the topmost layer that has it.
    pub(super) fn get(&self, key: &str) -> Option<Field<'a>> {
        self.layers.iter().find_map(|layer| layer.get(key))
    }

    /// Whether the topmost layer itself says so.
    pub(super) fn own(&self, key: &str) -> Option<Field<'a>> {
        self.layers.first().and_then(|layer| layer.get(key))
    }

    /// The value of a key without which nothing goes; `why` ends the sentence "is missing: …".
    pub(super) fn need(&self, report: &mut Report, key: &str, why: &str) -> Option<Field<'a>> {
        let found = self.get(key);
        if found.is_none() {
            report.problem(&self.at.under(key, self.at.line), format!("is missing: {why}"));
        }
        found
    }

    /// A group within the group, layer by layer.
    pub(super) fn group(&self, report: &mut Report, key: &str, known: &[&str]) -> Group<'a> {
        let mut groups = self
            .layers
            .iter()
            .filter_map(|layer| layer.get(key))
            .map(|at| Group::open(report, &at, known, Quote::Keys));
        match groups.next() {
            Some(top) => groups.fold(top, Group::over),
            None => Group { at: self.at.under(key, self.at.line), layers: Vec::new() },
        }
    }

    /// The parsed value of a key; `None` if it is absent or wrong, which is reported.
    pub(super) fn parse<T>(
        &self,
        report: &mut Report,
        key: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.get(key)?.parse(report, read)
    }
}

impl<'a> Layer<'a> {
    fn get(&self, key: &str) -> Option<Field<'a>> {
        let (key, node) = self.entries.iter().find(|(have, _)| have.text == key)?;
        Some(Field { at: self.at.under(&key.text, key.line), node })
    }
}

impl<'a> Field<'a> {
    /// The whole file.
    pub(super) fn root(node: &'a Node) -> Self {
        Self { at: At { line: node.line, path: String::new() }, node }
    }

    /// The mapping that stands here, its duplicates reported.
    fn map(&self, report: &mut Report, quote: Quote) -> Option<&'a [(Key, Node)]> {
        let Value::Map(entries) = &self.node.value else {
            self.wrong(report, "a mapping (`key: value`)");
            return None;
        };
        for (index, (key, _)) in entries.iter().enumerate() {
            if let Some((first, _)) = entries[..index].iter().find(|(before, _)| before.text == key.text) {
                let at = match quote {
                    Quote::Keys => self.at.under(&key.text, key.line),
                    Quote::Nothing => At { line: key.line, path: self.at.path.clone() },
                };
                report.problem(&at, format!("the same key stands here and on line {}; keep one of them", first.line));
            }
        }
        Some(entries)
    }

    /// The entries of the mapping that stands here, as fields.
    pub(super) fn entries(&self, report: &mut Report) -> Vec<(&'a str, Field<'a>)> {
        let entries = self.map(report, Quote::Keys).unwrap_or_default();
        entries
            .iter()
            .map(|(key, node)| (key.text.as_str(), Field { at: self.at.under(&key.text, key.line), node }))
            .collect()
    }

    /// The list that stands here.
    pub(super) fn list(&self, report: &mut Report) -> Vec<Field<'a>> {
        let Value::List(items) = &self.node.value else {
            self.wrong(report, "a list (`[one, two]`)");
            return Vec::new();
        };
        let item = |(index, node): (usize, &'a Node)| Field {
            at: At { line: node.line, path: format!("{}[{index}]", self.at.path) },
            node,
        };
        items.iter().enumerate().map(item).collect()
    }

    /// The single value that stands here.
    pub(super) fn text(&self, report: &mut Report) -> Option<&'a str> {
        match &self.node.value {
            Value::Text(text) => Some(text),
            _ => {
                self.wrong(report, "a single value");
                None
            }
        }
    }

    /// The single value that stands here, as `read` reads it.
    pub(super) fn parse<T>(&self, report: &mut Report, read: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        match read(self.text(report)?) {
            Ok(value) => Some(value),
            Err(why) => {
                report.problem(&self.at, why);
                None
            }
        }
    }

    fn wrong(&self, report: &mut Report, expected: &str) {
        match &self.node.value {
            Value::Null => report.problem(&self.at, format!("is empty; write {expected}, or leave the key out")),
            other => report.problem(&self.at, format!("expected {expected}, found {}", other.kind())),
        }
    }
}

/// `true` or `false`, nothing else: YAML 1.1's `yes` and `on` read differently in every parser.
pub(super) fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

/// Names of accounts and fleets: they stand in metrics, file names and commands.
pub(super) fn parse_name(text: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if (1..=40).contains(&text.len()) && text.chars().all(legal) {
        Ok(())
    } else {
        Err("a name has 1 to 40 characters of a-z, 0-9, - and _".to_string())
    }
}

/// The known word that was most likely meant: at most two edits away, and at most a third of its length.
pub(super) fn nearest<'w>(word: &str, known: &[&'w str]) -> Option<&'w str> {
    // A word far longer than any key is no slip, and comparing it would cost its length.
    if word.len() > 64 {
        return None;
    }
    let by_distance = known.iter().map(|&candidate| (distance(word, candidate), candidate));
    by_distance.filter(|&(edits, candidate)| edits <= 2.min(candidate.len() / 3)).min().map(|(_, candidate)| candidate)
}

/// How many edits lead from one word to the other, without regard to case: a letter more, less or changed, or two
/// neighbours swapped.
fn distance(a: &str, b: &str) -> usize {
    let [a, b]: [Vec<char>; 2] = [a, b].map(|word| word.to_lowercase().chars().collect());
    let mut edits = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            if i == 0 || j == 0 {
                edits[i][j] = i + j;
                continue;
            }
            let changed = edits[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            edits[i][j] = changed.min(edits[i - 1][j] + 1).min(edits[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                edits[i][j] = edits[i][j].min(edits[i - 2][j - 2] + 1);
            }
        }
    }
    edits[a.len()][b.len()]
}

/// Which keys were known where, for the test that holds the schema against them.
#[cfg(test)]
pub(super) mod asked {
    use std::cell::RefCell;
    use std::collections::{BTreeMap, BTreeSet};

    /// By place: its keys.
    pub(in super::super) type Known = BTreeMap<String, BTreeSet<String>>;

    thread_local!(static KNOWN: RefCell<Known> = RefCell::default());

    pub(super) fn note(path: &str, known: &[&str]) {
        let keys = known.iter().map(ToString::to_string);
        KNOWN.with_borrow_mut(|all| all.entry(path.to_string()).or_default().extend(keys));
    }

    /// All that was noted on this thread so far.
    pub(in super::super) fn known() -> Known {
        KNOWN.with_borrow(Clone::clone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_close_or_none() {
        let known = ["account", "region", "tags", "key"];
        let check = |word: &str, expect: Option<&str>| assert_eq!(nearest(word, &known), expect, "{word}");
        check("acount", Some("account"));
        check("Region", Some("region"));
        check("regoin", Some("region"));
        check("kye", Some("key"));
        check("tag", Some("tags"));
        check("keys", Some("key"));
        check("banana", None);
        check("", None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
