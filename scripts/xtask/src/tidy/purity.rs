//! Pure crates decide; they do not look at the world. `now`, random numbers and bytes are arguments.

use crate::finding::Finding;
use crate::source::{code_only, holds_word, without_tests};
use crate::workspace::Workspace;

const RULE: &str = "purity";

/// The crates whose code has no I/O, clock, randomness or async.
pub(super) const PURE: [&str; 11] = [
    "dataplane/units",
    "novafs/format",
    "novafs/namespace",
    "novafs/replica",
    "novabulk/codec",
    "novabulk/files",
    "novabulk/frame",
    "novabulk/transfer",
    "control/fleet",
    "control/groups",
    "control/state",
];

/// What may not be mentioned, and what to do in its place.
const BANNED: [(&str, &str); 20] = [
    ("Instant", "take the time as an argument of type Timestamp"),
    ("SystemTime", "take the time as an argument of type Timestamp"),
    ("std::fs", "take bytes as an argument"),
    ("std::io", "take bytes as an argument and return this crate's own error"),
    ("std::net", "return what to send as a value; addresses are in core::net"),
    ("std::env", "take the setting as an argument"),
    ("std::process", "return an error and let the binary decide"),
    ("std::thread", "return the work as a value"),
    ("thread::", "return the work as a value"),
    ("async fn", "write a state machine: input in, effects out"),
    ("async move", "write a state machine: input in, effects out"),
    (".await", "write a state machine: input in, effects out"),
    ("Mutex", "state is passed by &mut"),
    ("RwLock", "state is passed by &mut"),
    ("getrandom", "take random bytes as an argument"),
    ("fastrand", "take random bytes as an argument"),
    ("RandomState", "take the seed as an argument, or use an ordered map"),
    ("println!", "return the text as a value"),
    ("eprintln!", "return the text as a value"),
    ("tracing::", "return what happened as an event"),
];

/// Mentions of the outside world in the code of pure crates; their tests are free.
pub(super) fn check(workspace: &Workspace) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in workspace.files.iter().filter(|file| file.is_rust() && !file.is_test()) {
        let Some(one) = workspace.crate_of(&file.path) else { continue };
        if !PURE.contains(&one.folder.as_str()) {
            continue;
        }
        let code = without_tests(&code_only(&file.text));
        for (index, line) in code.lines().enumerate() {
            for (word, instead) in BANNED.iter().filter(|(word, _)| holds_word(line, word)) {
                let advice = format!("{} is pure and may not mention `{word}`; {instead}", one.folder);
                findings.push(Finding::new(RULE, format!("{}:{}", file.path, index + 1), advice));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::{Crate, TextFile};

    fn house(folder: &str, file: &str, text: &str) -> Workspace {
        let one = Crate { folder: folder.to_owned(), ..Crate::default() };
        let file = TextFile { path: format!("{folder}/{file}"), text: text.to_owned() };
        Workspace { crates: vec![one], files: vec![file], ..Workspace::default() }
    }

    #[test]
    fn a_clock_in_a_pure_crate_is_found() {
        let findings =
            check(&house("control/fleet", "src/plan.rs", "fn f() {\n  let now = Instant::now();\n}\n"));
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].place, "control/fleet/src/plan.rs:2");
        assert!(findings[0].advice.contains("Timestamp"), "{}", findings[0]);
    }

    #[test]
    fn every_banned_word_is_found() {
        for (word, _) in BANNED {
            let text = format!("fn f() {{ {word} x }}\n");
            assert!(!check(&house("novafs/replica", "src/lib.rs", &text)).is_empty(), "{word} passed");
        }
    }

    #[test]
    fn tests_comments_and_impure_crates_are_free() {
        let text = "// std::fs\n#[cfg(test)]\nmod tests { fn f() { std::fs::read(x); } }\n";
        assert_eq!(check(&house("novafs/format", "src/lib.rs", text)), []);
        assert_eq!(check(&house("novafs/format", "tests/all.rs", "fn f() { std::fs::read(x); }")), []);
        assert_eq!(check(&house("novafs/store", "src/lib.rs", "async fn f() {}")), []);
    }
}
