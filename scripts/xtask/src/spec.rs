//! The numbered sections of the specification: where each is cited, and its row in `docs/spec/README.md`.

use anyhow::{Result, bail};
use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::finding::Finding;
use crate::tidy::links;
use crate::workspace::Workspace;

const RULE: &str = "spec";
const TABLE: &str = "docs/spec/README.md";

/// What a row may say about a section.
const STATUSES: [&str; 3] = ["met", "partly", "not yet"];

/// Every numbered section, in order.
const SECTIONS: [&str; 52] = [
    "1.1", "1.2", "1.3", "1.4", "1.5", "2.1", "2.2", "2.3", "2.4", "2.5", "2.6", "2.7", "3.1", "3.2", "3.3",
    "3.4", "3.5", "3.6", "3.7", "4.1", "4.2", "4.3", "4.4", "4.5", "4.6", "4.7", "4.8", "5.1", "5.2", "5.3",
    "5.4", "5.5", "5.6", "5.7", "5.8", "5.9", "A.1", "A.2", "A.3", "B.1", "B.2", "B.3", "C.1", "C.2", "C.3",
    "C.4", "D.1", "D.2", "E.1", "E.2", "E.3", "E.4",
];

/// Places that cite one section.
#[derive(Debug, Default, PartialEq, Eq)]
struct Citations {
    code: Vec<String>,
    tests: Vec<String>,
}

/// Lists the lines that cite each section, or only `wanted`.
///
/// # Errors
/// When `wanted` is not a section.
pub(crate) fn report(workspace: &Workspace, wanted: Option<&str>) -> Result<String> {
    if let Some(wanted) = wanted.filter(|wanted| !SECTIONS.contains(wanted)) {
        bail!("there is no section {wanted}; sections run from 1.1 to 5.9 and from A.1 to E.4");
    }
    let citations = cited(workspace);
    let mut out = String::new();
    for section in SECTIONS.iter().filter(|section| wanted.is_none_or(|wanted| wanted == **section)) {
        let (code, tests) =
            citations.get(*section).map_or((&[][..], &[][..]), |found| (&found.code[..], &found.tests[..]));
        writeln!(out, "Spec {section}: {} in code, {} in tests", code.len(), tests.len())?;
        for (kind, places) in [("code", code), ("test", tests)] {
            for place in places {
                writeln!(out, "  {kind}  {place}")?;
            }
        }
    }
    Ok(out)
}

/// Citations of sections that do not exist, and rows of the table that are missing or misshapen.
pub(crate) fn check(workspace: &Workspace) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (section, citations) in cited(workspace) {
        if !SECTIONS.contains(&section.as_str()) {
            for place in citations.code.into_iter().chain(citations.tests) {
                findings.push(Finding::new(
                    RULE,
                    place,
                    format!("there is no section {section}; cite the right one"),
                ));
            }
        }
    }
    match workspace.file(TABLE) {
        Some(table) => findings.extend(check_table(&table.text)),
        None => {
            findings.push(Finding::new(RULE, TABLE, "the table is missing; it has a row for every section"))
        }
    }
    findings
}

/// Rows are `| 1.1 | what it asks | status | code | tests |`.
fn check_table(text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut rows: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let row = line.trim().trim_start_matches('|');
        let cells: Vec<&str> = row.strip_suffix('|').unwrap_or(row).split('|').map(str::trim).collect();
        let is_row = line.starts_with('|') && cells[0].contains('.') && cells[0].len() == 3;
        if !is_row {
            continue;
        }
        let place = format!("{TABLE}:{}", index + 1);
        *rows.entry(cells[0]).or_default() += 1;
        let [section, asks, status, code, tests] = cells[..] else {
            findings.push(Finding::new(
                RULE,
                place,
                "a row has five cells: section, asks, status, code, tests",
            ));
            continue;
        };
        if asks.is_empty() || !STATUSES.contains(&status) {
            let advice = format!("{section} needs what it asks, and one of: {}", STATUSES.join(", "));
            findings.push(Finding::new(RULE, &place, advice));
        }
        if ["met", "partly"].contains(&status) && (links(code).is_empty() || links(tests).is_empty()) {
            let advice = format!("{section} is said to be {status}: link the code and the test that show it");
            findings.push(Finding::new(RULE, &place, advice));
        }
        if !SECTIONS.contains(&section) {
            findings.push(Finding::new(RULE, &place, format!("there is no section {section}")));
        }
    }
    for section in SECTIONS {
        match rows.get(section) {
            Some(1) => {}
            Some(_) => findings.push(Finding::new(RULE, TABLE, format!("{section} has more than one row"))),
            None => findings.push(Finding::new(RULE, TABLE, format!("{section} has no row"))),
        }
    }
    findings
}

/// Places by section, over every Rust file but this one, which names sections to talk about them.
fn cited(workspace: &Workspace) -> BTreeMap<String, Citations> {
    let mut found: BTreeMap<String, Citations> = BTreeMap::new();
    for file in
        workspace.files.iter().filter(|file| file.is_rust() && file.path != "scripts/xtask/src/spec.rs")
    {
        let mut in_tests = file.is_test();
        for (index, line) in file.text.lines().enumerate() {
            in_tests |= line.trim() == "#[cfg(test)]";
            for section in sections_in(line) {
                let citations = found.entry(section.to_owned()).or_default();
                let place = format!("{}:{}", file.path, index + 1);
                if in_tests { citations.tests.push(place) } else { citations.code.push(place) }
            }
        }
    }
    found
}

/// The sections that `line` cites: `Spec 1.4`, `Spec 1.4, B.2 and C.2`.
fn sections_in(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (at, word) in line.match_indices("Spec ") {
        let mut rest = &line[at + word.len()..];
        while let Some((section, after)) = section_at(rest) {
            found.push(section);
            let next = [", ", " and ", "/"].into_iter().find_map(|between| after.strip_prefix(between));
            rest = next.unwrap_or_default();
        }
    }
    found
}

/// A section at the start of `text`, and what follows it.
fn section_at(text: &str) -> Option<(&str, &str)> {
    let bytes = text.as_bytes();
    let first = *bytes.first()?;
    let shaped = (first.is_ascii_digit() || first.is_ascii_uppercase()) && bytes.get(1) == Some(&b'.');
    let digits = bytes.get(2..)?.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (shaped && digits > 0).then(|| text.split_at(2 + digits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::TextFile;

    fn house(files: &[(&str, &str)]) -> Workspace {
        let files = files
            .iter()
            .map(|(path, text)| TextFile { path: (*path).to_owned(), text: (*text).to_owned() })
            .collect();
        Workspace { files, ..Workspace::default() }
    }

    fn table() -> String {
        SECTIONS.iter().map(|section| format!("| {section} | asks | not yet | | |\n")).collect()
    }

    #[test]
    fn lists_of_sections_are_read_one_by_one() {
        assert_eq!(sections_in("// Spec 3.7: why"), ["3.7"]);
        assert_eq!(sections_in("/// (Spec C.2, 1.4 and B.1) and Spec 5.9."), ["C.2", "1.4", "B.1", "5.9"]);
        assert!(sections_in("// a Spec of nothing, Spec x.1").is_empty());
    }

    #[test]
    fn code_and_tests_are_told_apart() {
        let workspace = house(&[
            ("a/src/lib.rs", "// Spec 3.7\n#[cfg(test)]\nmod tests { // Spec 3.7\n}\n"),
            ("a/tests/all.rs", "// Spec 3.7\n"),
        ]);
        let report = report(&workspace, Some("3.7")).unwrap();
        assert!(report.starts_with("Spec 3.7: 1 in code, 2 in tests\n  code  a/src/lib.rs:1\n"), "{report}");
        assert!(report.contains("a/tests/all.rs:1"), "{report}");
    }

    #[test]
    fn a_section_that_does_not_exist_is_found() {
        let findings = check(&house(&[("a/src/lib.rs", "// Spec 6.1\n"), (TABLE, &table())]));
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].place, "a/src/lib.rs:1");
        assert!(report(&house(&[]), Some("6.1")).is_err());
    }

    #[test]
    fn a_missing_or_doubled_row_is_found() {
        assert_eq!(check_table(&table()), []);
        assert_eq!(check_table(&table().replace("| 3.7 |", "| 3.6 |")).len(), 2);
        assert_eq!(check(&house(&[])).len(), 1);
    }

    #[test]
    fn a_met_row_without_proof_and_an_unknown_status_are_found() {
        let met = table().replace("| 3.7 | asks | not yet | | |", "| 3.7 | asks | met | [a](b) | |");
        assert_eq!(check_table(&met).len(), 1);
        let proven =
            table().replace("| 3.7 | asks | not yet | | |", "| 3.7 | asks | met | [a](b) | [c](d) |");
        assert_eq!(check_table(&proven), []);
        assert_eq!(
            check_table(&table().replace("| 3.7 | asks | not yet |", "| 3.7 | asks | soon |")).len(),
            1
        );
    }
}
