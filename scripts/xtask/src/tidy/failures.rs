//! `docs/failures.md`: every failure names the tests that prove what is said of it, and those tests are there.

use std::path::Path;

use crate::finding::Finding;
use crate::workspace::{TextFile, Workspace};

use super::documents::resolve;

const PAGE: &str = "docs/failures.md";
/// The table's heading begins so.
const HEADING: &str = "| failure |";
/// A row that says this names no test: there is nothing yet that could be tested.
const NOT_YET: &str = "not built yet";

/// Rows without a test, and tests that are not where the page says.
pub(super) fn check(workspace: &Workspace) -> Vec<Finding> {
    let Some(page) = workspace.file(PAGE) else {
        return vec![Finding::new(
            "failures",
            PAGE,
            "the page is missing; it says what defends against what",
        )];
    };
    check_page(page, &|path| {
        let known = path.to_str().and_then(|path| workspace.file(path));
        known.map(|file| file.text.as_str())
    })
}

fn check_page<'a>(page: &TextFile, text_of: &dyn Fn(&Path) -> Option<&'a str>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (mut rows, mut in_table) = (0, false);
    for (number, line) in (1..).zip(page.text.lines()) {
        let mut find =
            |advice: String| findings.push(Finding::new("failures", format!("{PAGE}:{number}"), advice));
        in_table = line.starts_with(HEADING) || (in_table && line.starts_with('|'));
        let tests = named_tests(line);
        for (name, target) in &tests {
            let found = resolve(PAGE, target).and_then(|path| text_of(&path));
            match found {
                None => find(format!("`{target}` is no file of ours; say where `{name}` is now")),
                Some(text) if !has_test(text, name) => {
                    find(format!("`{target}` has no test `{name}`; name the test that proves this now"));
                }
                Some(_) => {}
            }
        }
        let is_row = in_table && !line.starts_with(HEADING) && !line.starts_with("| ---");
        if is_row {
            rows += 1;
            if tests.is_empty() && !line.contains(NOT_YET) {
                find(format!("the row names no test; write one, or say that it is {NOT_YET}"));
            }
        }
    }
    if rows == 0 {
        findings.push(Finding::new(
            "failures",
            PAGE,
            format!("there is no table that begins with `{HEADING}`"),
        ));
    }
    findings
}

/// Links whose text is the name of a test in backticks and whose target is a file of Rust.
fn named_tests(line: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices("[`") {
        let rest = &line[at + 2..];
        let Some((name, rest)) = rest.split_once("`](") else { continue };
        let Some((target, _)) = rest.split_once(')') else { continue };
        if target.ends_with(".rs") && !name.contains(['`', ' ']) {
            found.push((name, target));
        }
    }
    found
}

/// Whether a function of this name stands behind an attribute that makes it a test, and none that keeps it from running.
fn has_test(text: &str, name: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let begins = |line: &str| {
        let line = line.strip_prefix("async ").unwrap_or(line);
        line.strip_prefix("fn ")
            .and_then(|rest| rest.strip_prefix(name))
            .is_some_and(|rest| rest.starts_with('('))
    };
    lines.iter().enumerate().filter(|(_, line)| begins(line)).any(|(at, _)| {
        let above =
            lines[..at].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("//"));
        let above: Vec<&&str> = above.collect();
        let is = |attribute: &str| above.iter().any(|line| line.starts_with(attribute));
        (is("#[test]") || is("#[tokio::test")) && !is("#[ignore")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "/// No test.\nfn helper() {}\n\n#[test]\n#[should_panic]\nfn it_holds() {}\n\n\
                          #[tokio::test(flavor = \"multi_thread\")]\nasync fn it_waits() {}\n\n\
                          #[test]\n#[ignore = \"never run\"]\nfn it_promises() {}\n";

    fn findings(text: &str) -> Vec<String> {
        let page = TextFile { path: PAGE.to_owned(), text: text.to_owned() };
        let text_of = |path: &Path| (path == Path::new("a/b.rs")).then_some(SOURCE);
        check_page(&page, &text_of)
            .into_iter()
            .map(|finding| format!("{} {}", finding.place, finding.advice))
            .collect()
    }

    fn table(rows: &str) -> String {
        format!("# F\n\n| failure | defence | tests |\n| --- | --- | --- |\n{rows}")
    }

    #[test]
    fn tests_that_are_there_and_rows_that_are_not_built_are_fine() {
        let rows = "| a | b | [`it_holds`](../a/b.rs), [`it_waits`](../a/b.rs) |\n| c | not built yet | |\n";
        assert_eq!(findings(&table(rows)), [""; 0]);
    }

    #[test]
    fn a_renamed_or_ignored_test_a_moved_file_and_a_row_without_a_test_are_found() {
        let rows = "| a | b | [`it_held`](../a/b.rs) |\n| a | b | [`helper`](../a/b.rs) |\n\
                    | a | b | [`it_holds`](../a/c.rs) |\n| a | b | a promise |\n\
                    | a | b | [`it_promises`](../a/b.rs) |\n";
        let found = findings(&table(rows));
        assert_eq!(found.len(), 5, "{found:?}");
        assert!(found[4].contains("no test `it_promises`"), "an ignored test proves nothing: {found:?}");
        assert!(found[0].starts_with("docs/failures.md:5 `../a/b.rs` has no test `it_held`"), "{found:?}");
        assert!(found[1].contains("no test `helper`") && found[2].contains("no file of ours"), "{found:?}");
        assert!(found[3].contains("names no test"), "{found:?}");
    }

    #[test]
    fn names_in_the_prose_are_checked_too_and_a_page_without_a_table_is_found() {
        let found = findings("See [`it_held`](../a/b.rs) and [the page](novafs.md).\n");
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[1].contains("there is no table"), "{found:?}");
    }
}
