//! The rules of the house that a compiler does not check. Runs as a command and as a test.

mod directions;
mod documents;
mod failures;
mod files;
mod manifests;
mod policy;
mod purity;
mod unsafety;
mod walls;

use anyhow::Result;

pub(crate) use documents::links;

use crate::finding::Finding;
use crate::spec;
use crate::workspace::Workspace;

/// Everything that breaks a rule, sorted by place.
///
/// # Errors
/// When the workspace cannot be looked at: an unreadable `deny.toml`, or a failing `cargo tree`.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    findings.extend(directions::check(&workspace.crates));
    findings.extend(walls::check(workspace)?);
    findings.extend(unsafety::check(workspace));
    findings.extend(purity::check(workspace));
    findings.extend(manifests::check(workspace)?);
    findings.extend(policy::check(workspace)?);
    findings.extend(files::check(workspace));
    findings.extend(documents::check(workspace));
    findings.extend(failures::check(workspace));
    findings.extend(spec::check(workspace));
    findings.sort();
    findings.dedup();
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_follows_its_own_rules() {
        let workspace = Workspace::load().unwrap();
        assert!(workspace.crates.len() > 20, "only {} crates found", workspace.crates.len());
        let findings = check(&workspace).unwrap();
        let list: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert!(list.is_empty(), "{} findings:\n{}", list.len(), list.join("\n"));
    }
}
