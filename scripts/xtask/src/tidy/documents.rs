//! Documents: links lead somewhere, and decision records have their number and their four questions.

use std::path::{Component, Path, PathBuf};

use crate::finding::Finding;
use crate::workspace::{TextFile, Workspace};

/// The questions every decision record answers, as its headings.
const QUESTIONS: [&str; 4] =
    ["What we needed", "What we chose", "What we gave up", "How to tell it was wrong"];

/// Broken links, misshapen records, and pages a house must have.
pub(super) fn check(workspace: &Workspace) -> Vec<Finding> {
    let mut findings = Vec::new();
    for page in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "docs/glossary.md", "docs/testing.md"] {
        if workspace.file(page).is_none() {
            findings.push(Finding::new("document", page, "the page is missing; every reader starts there"));
        }
    }
    findings.extend(check_map(workspace));
    for file in workspace.files.iter().filter(|file| file.is_markdown()) {
        findings.extend(check_links(file, &|path| workspace.root.join(path).exists()));
    }
    findings.extend(check_records(&workspace.files));
    findings
}

/// Crates without a line in the map of `ARCHITECTURE.md`.
fn check_map(workspace: &Workspace) -> Vec<Finding> {
    let map = workspace.file("ARCHITECTURE.md").map_or("", |file| file.text.as_str());
    let lost = workspace.crates.iter().filter(|one| !map.contains(&format!("| [`{0}`]({0}) | ", one.folder)));
    lost.map(|one| {
        let advice = format!("`{}` is not on the map; add a line that says what it is for", one.folder);
        Finding::new("document", "ARCHITECTURE.md", advice)
    })
    .collect()
}

/// Relative links whose target is not there.
fn check_links(file: &TextFile, exists: &dyn Fn(&Path) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, target) in links(&file.text) {
        let path = target.split('#').next().unwrap_or(target);
        if path.is_empty() || target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let place = format!("{}:{line}", file.path);
        match resolve(&file.path, path) {
            Some(resolved) if exists(&resolved) => {}
            Some(_) => findings.push(Finding::new(
                "link",
                place,
                format!("`{target}` leads nowhere; mend or drop it"),
            )),
            None => findings.push(Finding::new(
                "link",
                place,
                format!("`{target}` leaves the repository; drop it"),
            )),
        }
    }
    findings
}

/// The targets of inline links with their line; code is skipped.
pub(crate) fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for (at, _) in line.match_indices("](") {
            let in_code = line[..at].matches('`').count() % 2 == 1;
            if let (false, Some(length)) = (in_code, line[at + 2..].find(')')) {
                found.push((index + 1, &line[at + 2..at + 2 + length]));
            }
        }
    }
    found
}

/// `target` as a path from the root, seen from the file at `from`; `None` when it leaves the repository.
pub(super) fn resolve(from: &str, target: &str) -> Option<PathBuf> {
    let mut resolved = PathBuf::from(from);
    resolved.pop();
    for component in Path::new(target).components() {
        match component {
            Component::Normal(name) => resolved.push(name),
            Component::ParentDir => {
                if !resolved.pop() {
                    return None;
                }
            }
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(resolved)
}

/// `docs/adr/NNNN-title.md` with the heading `# NNNN: Title`, the four questions, and no number twice.
fn check_records(files: &[TextFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut expected = 1_u32;
    for file in files {
        let Some(name) = file.path.strip_prefix("docs/adr/").filter(|name| *name != "README.md") else {
            continue;
        };
        let number = name.split('-').next().unwrap_or(name);
        if number != format!("{expected:04}") {
            let advice = format!(
                "records are numbered without gaps, as NNNN-title.md; this one should be {expected:04}"
            );
            findings.push(Finding::new("decision record", &file.path, advice));
        }
        expected += 1;
        let heading = file.text.lines().next().unwrap_or_default();
        if !heading.starts_with(&format!("# {number}: ")) {
            findings.push(Finding::new(
                "decision record",
                &file.path,
                format!("begin with `# {number}: <title>`"),
            ));
        }
        for question in QUESTIONS {
            if !file.text.lines().any(|line| line == format!("## {question}")) {
                findings.push(Finding::new("decision record", &file.path, format!("answer `## {question}`")));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> TextFile {
        TextFile { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn a_crate_that_is_not_on_the_map_is_found() {
        let one = crate::workspace::Crate { folder: "novafs/store".to_owned(), ..Default::default() };
        let with = |text: &str| Workspace {
            crates: vec![one.clone()],
            files: vec![file("ARCHITECTURE.md", text)],
            ..Workspace::default()
        };
        assert_eq!(check_map(&with("| [`novafs/store`](novafs/store) | one device |\n")), []);
        assert_eq!(check_map(&with("novafs/store is a crate\n")).len(), 1);
    }

    #[test]
    fn a_link_to_nothing_is_found_with_its_line() {
        let page = file("docs/a.md", "x\n[b](b.md) [c](../c.md#part) [d](https://example.org) [e](#here)\n");
        let findings = check_links(&page, &|path| path == Path::new("docs/b.md"));
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].place, "docs/a.md:2");
        assert!(findings[0].advice.contains("../c.md#part"));
    }

    #[test]
    fn a_link_out_of_the_repository_is_found() {
        for target in ["../../x", "/etc/passwd"] {
            let page = file("docs/a.md", &format!("[x]({target})"));
            assert_eq!(check_links(&page, &|_| true).len(), 1, "{target}");
        }
    }

    #[test]
    fn links_in_code_are_not_links() {
        assert_eq!(links("```text\n[a](b)\n```\n`[a](b)` [c](d)"), [(4, "d")]);
    }

    #[test]
    fn a_record_needs_its_number_its_title_and_four_answers() {
        let whole = "# 0001: X\n## What we needed\n## What we chose\n## What we gave up\n## How to tell it was wrong\n";
        assert_eq!(check_records(&[file("docs/adr/0001-x.md", whole)]), []);
        assert_eq!(check_records(&[file("docs/adr/0001-x.md", "# X\n")]).len(), 5);
        assert_eq!(check_records(&[file("docs/adr/0003-x.md", &whole.replace("0001", "0003"))]).len(), 1);
    }
}
