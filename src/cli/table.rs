//! Columns side by side, as wide as the terminal: the last column is wrapped, the widest of the others are cut, or a row becomes
//! several lines. Pure; it must never cut what goes to a file or a pipe, where no width is given.

use console::{measure_text_width as width_of, truncate_str};

/// Between two columns.
const GAP: usize = 2;
/// No column is cut to less: a time and an instance's id stay whole …
const COLUMN_MIN: usize = 22;
/// … the last one is wrapped to this before others are cut …
const LAST_WANTS: usize = 24;
/// … and to no less than this.
const LAST_MIN: usize = 12;
/// The second and later lines of a row are set in by this.
const STEP: usize = 4;

/// A table, the first row being the heads, indented by `indent`. `fit`: the terminal's columns; `None`: as wide as it is.
pub(super) fn table(indent: usize, heads: &[&str], rows: &[Vec<String>], fit: Option<usize>) -> String {
    blocks(indent, heads, rows, fit).concat()
}

/// A table whose rows become several lines where not all of it fits, each line of so many columns. Nothing but words between
/// which a line may break is wrapped then.
pub(super) fn in_lines(lines: &[usize], heads: &[&str], rows: &[Vec<String>], fit: Option<usize>) -> String {
    let natural = natural(heads, rows);
    let (last, others) = natural.split_last().unwrap_or((&0, &[]));
    let words = rows.iter().filter_map(|row| row.get(others.len())).flat_map(|cell| cell.split(' '));
    let needs = words.map(width_of).max().unwrap_or(0).max(LAST_WANTS.min(*last));
    if fit.is_none_or(|fit| others.iter().map(|width| width + GAP).sum::<usize>() + needs <= fit) {
        return table(0, heads, rows, fit);
    }
    let mut from = 0;
    let mut parts: Vec<Vec<String>> = Vec::new();
    for columns in lines {
        let of = |row: &Vec<String>| row.iter().skip(from).take(*columns).cloned().collect();
        let heads: Vec<&str> = heads.iter().skip(from).take(*columns).copied().collect();
        let rows: Vec<Vec<String>> = rows.iter().map(of).collect();
        parts.push(blocks(if from == 0 { 0 } else { STEP }, &heads, &rows, fit));
        from += columns;
    }
    // A row that says nothing there has no such line.
    let says = |text: &&String| !text.trim().is_empty();
    let row = |row: usize| parts.iter().filter_map(move |part| part.get(row)).filter(says);
    (0..=rows.len()).flat_map(row).map(String::as_str).collect()
}

/// How wide each column is by itself.
fn natural(heads: &[&str], rows: &[Vec<String>]) -> Vec<usize> {
    let widest = |(column, head): (usize, &&str)| {
        let cells = rows.iter().filter_map(|row| Some(width_of(row.get(column)?)));
        cells.max().unwrap_or(0).max(width_of(head))
    };
    heads.iter().enumerate().map(widest).collect()
}

/// The lines of each row, that of the heads first.
fn blocks(indent: usize, heads: &[&str], rows: &[Vec<String>], fit: Option<usize>) -> Vec<String> {
    let natural = natural(heads, rows);
    let widths = fit.map_or(natural.clone(), |fit| fitted(&natural, fit.saturating_sub(indent)));
    let heads: Vec<String> = heads.iter().map(ToString::to_string).collect();
    let block = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(at, (cell, width))| {
            let is_last = at + 1 == widths.len();
            if is_last { wrap(cell, *width) } else { vec![truncate_str(cell, *width, "…").into_owned()] }
        });
        let cells: Vec<Vec<String>> = cells.collect();
        let mut text = String::new();
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
        text
    };
    std::iter::once(&heads).chain(rows).map(block).collect()
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
        assert!(table(0, &["A", "B", "C"], &given, Some(5)).lines().count() > 3, "too narrow a terminal is no panic");
        let whole = table(0, &["JOURNAL", "OUTCOME", "WHAT"], &given, None);
        assert!(whole.contains(long) && whole.contains("01a2073c-f10b-7b26-93dc-ce7a88100000"), "{whole}");
    }

    #[test]
    fn a_row_that_does_not_fit_becomes_several_lines_and_loses_nothing() {
        let given = rows(&[&["2026-11-23T08:04:10Z", "web", "all is well", "/a/long/path"], &["", "db", "", ""]]);
        let heads = ["BEGUN", "FLEET", "HOW", "WHERE"];
        let check = |fit: Option<usize>, expect: &str| assert_eq!(in_lines(&[2, 1, 1], &heads, &given, fit), expect);
        let flat = "BEGUN                 FLEET  HOW          WHERE\n2026-11-23T08:04:10Z  web    all is well  /a/long/path\n\
                    \x20                     db\n";
        check(None, flat);
        check(Some(54), flat);
        // No word is broken: the path does not fit any more.
        let stacked = "BEGUN                 FLEET\n    HOW\n    WHERE\n2026-11-23T08:04:10Z  web\n    all is well\n    /a/long/path\n\
                       \x20                     db\n";
        check(Some(53), stacked);
        check(Some(30), stacked);
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
