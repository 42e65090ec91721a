//! Files: short enough to read, named by the noun they hold, reachable from a crate root.

use std::collections::BTreeSet;

use crate::finding::Finding;
use crate::source::{code_only, holds_word};
use crate::workspace::{TextFile, Workspace};

const RULE: &str = "file";

/// Past this a file holds a second noun.
const LINES_MAX: usize = 800;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 8] =
    ["utils", "util", "common", "helpers", "helper", "misc", "manager", "managers"];

/// The one integration-test binary a crate may have.
const TEST_BINARY: &str = "all.rs";

/// Files that are too long, badly named, dead, or a second integration-test binary.
pub(super) fn check(workspace: &Workspace) -> Vec<Finding> {
    let mut findings = Vec::new();
    let sources: Vec<&TextFile> = workspace.files.iter().filter(|file| file.is_rust()).collect();
    let modules = declared_modules(&sources);
    for file in &sources {
        let lines = file.text.lines().count();
        if lines > LINES_MAX {
            let advice =
                format!("{lines} lines, more than {LINES_MAX}; look for the second noun and move it out");
            findings.push(Finding::new(RULE, &file.path, advice));
        }
        findings.extend(check_name(&file.path));
        let Some(one) = workspace.crate_of(&file.path) else { continue };
        let inside = &file.path[one.folder.len() + 1..];
        if let Some(binary) = inside.strip_prefix("tests/").filter(|rest| !rest.contains('/')) {
            if binary != TEST_BINARY {
                let advice = "one integration-test binary per crate: make it a module of tests/all.rs, below tests/all/";
                findings.push(Finding::new(RULE, &file.path, advice));
            }
        } else if !is_root(inside) && !one.roots.contains(&file.path) && !modules.contains(&file.path) {
            let advice = "no file declares this module; declare it or delete the file";
            findings.push(Finding::new(RULE, &file.path, advice));
        }
    }
    findings
}

fn check_name(path: &str) -> Option<Finding> {
    let mut names = path.split('/').map(|part| part.strip_suffix(".rs").unwrap_or(part));
    if path.ends_with("/mod.rs") {
        return Some(Finding::new(RULE, path, "no mod.rs: put `x.rs` beside the folder `x/`"));
    }
    let empty = names.find(|name| name.split('_').any(|word| EMPTY_NAMES.contains(&word)))?;
    Some(Finding::new(RULE, path, format!("`{empty}` says nothing; name it by the noun it holds")))
}

/// Build scripts, examples and benches are roots by their place.
fn is_root(inside: &str) -> bool {
    inside == "build.rs" || inside.starts_with("examples/") || inside.starts_with("benches/")
}

/// The paths of every module that some file declares with `mod name;`.
fn declared_modules(sources: &[&TextFile]) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    for file in sources {
        let (folder, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
        let stem = name.strip_suffix(".rs").unwrap_or(name);
        let at_root = ["lib", "main", "mod"].contains(&stem) || folder.ends_with("/src/bin");
        let below = if at_root { folder.to_owned() } else { format!("{folder}/{stem}") };
        let code = code_only(&file.text);
        for line in code.lines().filter(|line| holds_word(line, "mod") && line.contains(';')) {
            let Some(declared) = line.split("mod ").nth(1).and_then(|rest| rest.split(';').next()) else {
                continue;
            };
            modules.insert(format!("{below}/{}.rs", declared.trim()));
        }
    }
    modules
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Crate;

    fn house(files: &[(&str, &str)]) -> Workspace {
        let one = Crate {
            folder: "novafs/store".to_owned(),
            roots: vec!["novafs/store/src/lib.rs".to_owned()],
            ..Crate::default()
        };
        let files = files
            .iter()
            .map(|(path, text)| TextFile { path: format!("novafs/store/{path}"), text: (*text).to_owned() })
            .collect();
        Workspace { crates: vec![one], files, ..Workspace::default() }
    }

    #[test]
    fn modules_beside_their_folder_pass() {
        let files = [
            ("src/lib.rs", "mod wal;\n#[cfg(test)]\nmod tests;\n"),
            ("src/tests.rs", ""),
            ("src/wal.rs", "pub(crate) mod segment;\n"),
            ("src/wal/segment.rs", ""),
            ("tests/all.rs", "mod crash;\n"),
            ("tests/all/crash.rs", ""),
        ];
        assert_eq!(check(&house(&files)), []);
    }

    #[test]
    fn a_dead_file_is_found() {
        let findings = check(&house(&[("src/lib.rs", "// mod wal;\n"), ("src/wal.rs", "")]));
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].place, "novafs/store/src/wal.rs");
    }

    #[test]
    fn a_long_file_is_found() {
        let text = "//\n".repeat(LINES_MAX + 1);
        assert_eq!(check(&house(&[("src/lib.rs", &text)])).len(), 1);
        assert_eq!(check(&house(&[("src/lib.rs", &text[3..])])), []);
    }

    #[test]
    fn empty_names_and_mod_files_are_found() {
        for name in ["src/utils.rs", "src/common/wal.rs", "src/wal/mod.rs", "src/wal_helpers.rs"] {
            assert!(check_name(name).is_some(), "{name}");
        }
        assert!(check_name("src/commonplace.rs").is_none());
    }

    #[test]
    fn a_second_test_binary_is_found() {
        assert_eq!(check(&house(&[("src/lib.rs", ""), ("tests/more.rs", "")])).len(), 1);
    }
}
