//! `unsafe` lives in three crates, and every other crate forbids it.

use crate::finding::Finding;
use crate::source::{code_only, holds_word};
use crate::workspace::{Crate, Workspace};

const RULE: &str = "unsafe code";

/// The crates that own memory or talk to the kernel by raw pointers.
const MAY_BE_UNSAFE: [&str; 3] = ["dataplane/buf", "dataplane/device", "dataplane/ring"];

/// `unsafe` in the wrong place, crate roots that do not forbid it, and foreign functions.
pub(super) fn check(workspace: &Workspace) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in workspace.files.iter().filter(|file| file.is_rust()) {
        let Some(one) = workspace.crate_of(&file.path) else { continue };
        let code = code_only(&file.text);
        for (index, line) in code.lines().enumerate() {
            let place = format!("{}:{}", file.path, index + 1);
            if holds_word(line, "unsafe") && !may_be_unsafe(one) {
                let advice = "only buf, device and ring may hold unsafe code; use rustix, or put a safe owner into one of them";
                findings.push(Finding::new(RULE, place, advice));
            } else if line.contains("extern \"") {
                let advice =
                    "foreign functions are declared in ffi/ only; here use libc, rustix or a safe owner";
                findings.push(Finding::new(RULE, place, advice));
            }
        }
        if one.roots.contains(&file.path) && !declares_its_stand(&code, one) {
            findings.push(Finding::new(RULE, &file.path, stand(one)));
        }
    }
    findings
}

fn may_be_unsafe(one: &Crate) -> bool {
    MAY_BE_UNSAFE.contains(&one.folder.as_str())
}

fn declares_its_stand(code: &str, one: &Crate) -> bool {
    // The attribute may be spread over lines.
    let packed: String = code.split_whitespace().collect();
    packed.contains("#![forbid(unsafe_code)]")
        || (may_be_unsafe(one) && packed.contains("#![allow(unsafe_code,reason="))
}

fn stand(one: &Crate) -> String {
    if may_be_unsafe(one) {
        "say `#![allow(unsafe_code, reason = \"...\")]` or forbid it at the top of the crate".to_owned()
    } else {
        "put `#![forbid(unsafe_code)]` at the top of the crate".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::TextFile;

    fn house(folder: &str, text: &str) -> Workspace {
        let root = format!("{folder}/src/lib.rs");
        let one = Crate { folder: folder.to_owned(), roots: vec![root.clone()], ..Crate::default() };
        let file = TextFile { path: root, text: text.to_owned() };
        Workspace { crates: vec![one], files: vec![file], ..Workspace::default() }
    }

    #[test]
    fn unsafe_outside_its_crates_is_found_with_its_line() {
        let findings =
            check(&house("novafs/store", "#![forbid(unsafe_code)]\nfn f() {\n  unsafe { g() }\n}\n"));
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].place, "novafs/store/src/lib.rs:3");
    }

    #[test]
    fn a_root_that_forbids_nothing_is_found() {
        assert_eq!(check(&house("novafs/store", "fn f() {}\n")).len(), 1);
        assert_eq!(check(&house("novafs/store", "// #![forbid(unsafe_code)]\n")).len(), 1);
        assert_eq!(check(&house("dataplane/buf", "fn f() {}\n")).len(), 1);
    }

    #[test]
    fn unsafe_in_buf_and_words_in_comments_pass() {
        assert_eq!(
            check(&house(
                "dataplane/buf",
                "#![allow(unsafe_code, reason = \"x\")]\nfn f() { unsafe { g() } }\n"
            )),
            []
        );
        let spread = "#![allow(\n    unsafe_code,\n    reason = \"x\"\n)]\n";
        assert_eq!(check(&house("dataplane/ring", spread)), []);
        assert_eq!(
            check(&house(
                "novafs/store",
                "#![forbid(unsafe_code)]\n// unsafe {}\nconst A: &str = \"unsafe\";\n"
            )),
            []
        );
    }

    #[test]
    fn a_foreign_function_is_found() {
        let text = "#![allow(unsafe_code, reason = \"x\")]\nextern \"C\" fn f() {}\n";
        assert_eq!(check(&house("dataplane/device", text)).len(), 1);
    }
}
