//! Runtime walls: no tokio outside control, no glommio and no io_uring inside it. Looks at everything a
//! crate links, not only at what its manifest names.

use anyhow::Result;

use crate::finding::Finding;
use crate::workspace::Workspace;

const RULE: &str = "runtime wall";

/// Paths over the walls.
pub(super) fn check(workspace: &Workspace) -> Result<Vec<Finding>> {
    let (control, below): (Vec<&str>, Vec<&str>) = {
        let names = |inside: bool| {
            workspace
                .crates
                .iter()
                .filter(move |one| one.folder.starts_with("control/") == inside)
                .map(|one| one.name.as_str())
        };
        (names(true).collect(), names(false).collect())
    };
    let mut findings =
        crossings(&workspace.tree(&below)?, &["tokio", "tonic", "openraft"], "outside control/");
    findings.extend(crossings(&workspace.tree(&control)?, &["glommio", "io-uring"], "in control/"));
    Ok(findings)
}

/// Where a `cargo tree --prefix depth` meets one of `banned`, each with the path that leads there.
fn crossings(tree: &str, banned: &[&str], side: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut path: Vec<&str> = Vec::new();
    for line in tree.lines() {
        let name_at = line.find(|c: char| !c.is_ascii_digit()).unwrap_or(line.len());
        let Ok(depth) = line[..name_at].parse::<usize>() else { continue };
        let Some(name) = line[name_at..].split(' ').next() else { continue };
        path.truncate(depth);
        path.push(name);
        if banned.contains(&name) {
            let advice = format!(
                "{name} may not be linked {side}, but {}; cut the path, or put the feature that needs it behind a flag",
                path.join(" -> ")
            );
            findings.push(Finding::new(RULE, path[0], advice));
        }
    }
    findings.sort();
    findings.dedup();
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "0novafs-client v0.1.0 (/x)\n1nova-api v0.1.0 (/y)\n2prost v0.14.1\n2tonic v0.14.2\n3tokio v1.54.1\n\n0nova-units v0.1.0 (/z)\n";

    #[test]
    fn the_path_to_a_runtime_is_named() {
        let findings = crossings(TREE, &["tokio"], "outside control/");
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].place, "novafs-client");
        assert!(
            findings[0].advice.contains("novafs-client -> nova-api -> tonic -> tokio"),
            "{}",
            findings[0]
        );
    }

    #[test]
    fn a_tree_without_the_runtime_passes() {
        assert_eq!(crossings(TREE, &["glommio"], "in control/"), []);
    }
}
