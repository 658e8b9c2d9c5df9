//! What is wrong with a file, and what is merely worth knowing: each with its line and its path, all of them at once.
//! Nothing in here may hold the text of a secret; who writes a remark sees to that.

use std::fmt;
use std::path::{Path, PathBuf};

/// A place in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct At {
    /// 1-based; 0 if unknown.
    pub(super) line: u64,
    /// `fleets.web.rollout.batch_max`; empty for the file itself.
    pub(super) path: String,
}

impl At {
    /// A place under this one.
    pub(super) fn under(&self, key: &str, line: u64) -> Self {
        let path = if self.path.is_empty() { key.to_string() } else { format!("{}.{key}", self.path) };
        Self { line, path }
    }
}

/// One sentence about one place of the file. It prints as `rekeyd.yaml:12: fleets.web.account: unknown account "lx"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// The file, as it was named to us.
    pub file: PathBuf,
    /// 1-based; 0 if the remark is about the file as a whole.
    pub line: u64,
    /// 1-based; 0 unless the file is no YAML there.
    pub column: u64,
    /// The keys that lead there, joined by dots; empty for the file itself.
    pub path: String,
    /// The rule, and the way on.
    pub text: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        for number in [self.line, self.column].into_iter().take_while(|&number| number > 0) {
            write!(f, ":{number}")?;
        }
        f.write_str(": ")?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.text)
    }
}

/// Remarks as they are found.
pub(super) struct Report {
    file: PathBuf,
    problems: Vec<Remark>,
    notes: Vec<Remark>,
}

impl Report {
    pub(super) fn new(file: &Path) -> Self {
        Self { file: file.to_path_buf(), problems: Vec::new(), notes: Vec::new() }
    }

    /// The file cannot be used as it is.
    pub(super) fn problem(&mut self, at: &At, text: impl Into<String>) {
        let remark = self.remark(at, 0, text.into());
        add(&mut self.problems, remark);
    }

    /// The file is no YAML here.
    pub(super) fn broken(&mut self, line: u64, column: u64, text: String) {
        let remark = self.remark(&At { line, path: String::new() }, column, text);
        add(&mut self.problems, remark);
    }

    /// The file can be used; its writer should know.
    pub(super) fn note(&mut self, at: &At, text: impl Into<String>) {
        let remark = self.remark(at, 0, text.into());
        add(&mut self.notes, remark);
    }

    fn remark(&self, at: &At, column: u64, text: String) -> Remark {
        Remark { file: self.file.clone(), line: at.line, column, path: at.path.clone(), text }
    }

    /// The problems and the notes, each in the order of the file.
    pub(super) fn into_parts(mut self) -> (Vec<Remark>, Vec<Remark>) {
        self.problems.sort_by_key(|remark| (remark.line, remark.column));
        self.notes.sort_by_key(|remark| (remark.line, remark.column));
        (self.problems, self.notes)
    }
}

/// `defaults` are read once a fleet: what is wrong with them is said once.
fn add(remarks: &mut Vec<Remark>, remark: Remark) {
    if !remarks.contains(&remark) {
        remarks.push(remark);
    }
}
