//! Columns side by side, as wide as the terminal: the last column is wrapped, the widest of the others are cut. Pure; it must
//! never cut what goes to a file or a pipe, where no width is given.

use console::{measure_text_width as width_of, truncate_str};

/// Between two columns.
const GAP: usize = 2;
/// No column is cut to less: the beginning of an id still tells what it is …
const COLUMN_MIN: usize = 13;
/// … the last one is wrapped to this before others are cut …
const LAST_WANTS: usize = 24;
/// … and to no less than this.
const LAST_MIN: usize = 12;

/// A table, the first row being the heads, indented by `indent`. `fit`: the terminal's columns; `None`: as wide as it is.
pub(super) fn table(indent: usize, heads: &[&str], rows: &[Vec<String>], fit: Option<usize>) -> String {
    let heads: Vec<String> = heads.iter().map(ToString::to_string).collect();
    let all = || std::iter::once(&heads).chain(rows);
    let widest = |column: usize| all().filter_map(|row| Some(width_of(row.get(column)?))).max().unwrap_or(0);
    let natural: Vec<usize> = (0..heads.len()).map(widest).collect();
    let widths = fit.map_or(natural.clone(), |fit| fitted(&natural, fit.saturating_sub(indent)));
    let mut text = String::new();
    for row in all() {
        let cells = row.iter().zip(&widths).enumerate().map(|(at, (cell, width))| {
            let is_last = at + 1 == widths.len();
            if is_last { wrap(cell, *width) } else { vec![truncate_str(cell, *width, "…").into_owned()] }
        });
        let cells: Vec<Vec<String>> = cells.collect();
        for line in 0..cells.iter().map(Vec::len).max().unwrap_or(1) {
            let mut out = " ".repeat(indent);
            for (cell, width) in cells.iter().zip(&widths) {
                let part = cell.get(line).map_or("", String::as_str);
                out.push_str(part);
                out.push_str(&" ".repeat(width.saturating_sub(width_of(part)) + GAP));
            }
            text.push_str(out.trim_end());
            text.push('\n');
        }
    }
    text
}

/// The widths of columns that fit into `fit`, or come as near as they may.
fn fitted(natural: &[usize], fit: usize) -> Vec<usize> {
    let mut widths = natural.to_vec();
    let Some((last, others)) = widths.split_last_mut() else { return widths };
    let room = fit.saturating_sub(GAP * others.len());
    let left = |others: &[usize]| room.saturating_sub(others.iter().sum());
    let needs = (*last).min(LAST_WANTS);
    while left(others) < needs {
        // The widest is cut first; of equals the later one.
        let Some(widest) = others.iter_mut().max().filter(|widest| **widest > COLUMN_MIN) else { break };
        *widest -= 1;
    }
    *last = (*last).min(left(others).max(LAST_MIN));
    widths
}

/// A text in lines of at most `width` columns, between words where that goes.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let mut word = word.to_string();
        let room = |line: &str| width.saturating_sub(if line.is_empty() { 0 } else { width_of(line) + 1 });
        if lines.last().is_some_and(|line| width_of(&word) > room(line) && !line.is_empty()) {
            lines.push(String::new());
        }
        while width_of(&word) > width {
            let part = truncate_str(&word, width, "").into_owned();
            // A character that is wider than the line.
            if part.is_empty() {
                break;
            }
            word = word.split_off(part.len());
            if let Some(line) = lines.last_mut() {
                line.push_str(&part);
            }
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(&word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[&[&str]]) -> Vec<Vec<String>> {
        rows.iter().map(|row| row.iter().map(ToString::to_string).collect()).collect()
    }

    #[test]
    fn a_table_is_aligned_and_leaves_no_blanks_at_the_ends() {
        let check =
            |given: &[&[&str]], expect: &str| assert_eq!(table(2, &["x", "y", "z"], &rows(given), None), expect);
        check(&[&["a", "bbbb", "c"], &["aaaa", "é", ""]], "  x     y     z\n  a     bbbb  c\n  aaaa  é\n");
        // Wide characters take two columns of a terminal.
        check(&[&["网站", "b", "c"]], "  x     y  z\n  网站  b  c\n");
        check(&[], "  x  y  z\n");
    }

    #[test]
    fn a_table_is_no_wider_than_the_terminal_and_loses_no_word_of_its_last_column() {
        let long = "the cloud refused the bind of i-2ze96wag8mz2pjfyzm2v and said why at some length";
        let given =
            rows(&[&["01a2073c-f10b-7b26-93dc-ce7a88100000", "completed", long], &["short", "open", "all well"]]);
        for fit in [60, 80, 100, 120] {
            let text = table(0, &["JOURNAL", "OUTCOME", "WHAT"], &given, Some(fit));
            assert!(text.lines().all(|line| width_of(line) <= fit), "{fit}: {text}");
            let words = |text: &str| text.split_whitespace().map(str::to_string).collect::<Vec<_>>();
            let told = words(&text);
            assert!(words(long).iter().all(|word| told.contains(word)), "{fit}: {text}");
            assert!(text.contains("01a2073c-f10") && text.contains("completed"), "{fit}: {text}");
        }
        assert!(table(0, &["A", "B"], &given, Some(5)).lines().count() > 3, "too narrow a terminal is no panic");
        let whole = table(0, &["JOURNAL", "OUTCOME", "WHAT"], &given, None);
        assert!(whole.contains(long) && whole.contains("01a2073c-f10b-7b26-93dc-ce7a88100000"), "{whole}");
    }

    #[test]
    fn a_text_is_wrapped_between_words_and_within_those_that_are_too_long() {
        let check = |text: &str, width: usize, expect: &[&str]| assert_eq!(wrap(text, width), expect, "{text}");
        check("", 5, &[""]);
        check("one two three", 7, &["one two", "three"]);
        check("one two", 3, &["one", "two"]);
        check("abcdefgh ij", 3, &["abc", "def", "gh", "ij"]);
        check("a abcdef", 4, &["a", "abcd", "ef"]);
        check("网站网站", 4, &["网站", "网站"]);
        check("网", 1, &["网"]);
    }
}
