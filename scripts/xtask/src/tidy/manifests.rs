//! Manifests: one licence, nothing published, shared lints, versions pinned once at the root with a reason.

use anyhow::{Context, Result};
use toml::Table;

use crate::finding::Finding;
use crate::workspace::{TextFile, Workspace};

const RULE: &str = "manifest";

/// The licence of everything that is ours.
const LICENCE: &str = "Apache-2.0";

/// What the manifests of our crates and the root lack.
pub(super) fn check(workspace: &Workspace) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for one in &workspace.crates {
        let path = format!("{}/Cargo.toml", one.folder);
        let manifest = workspace.file(&path).with_context(|| format!("{path} was not read"))?;
        if one.publishable {
            findings.push(Finding::new(
                RULE,
                &path,
                "add `publish.workspace = true`: nothing here goes to a registry",
            ));
        }
        if one.licence.as_deref() != Some(LICENCE) {
            findings.push(Finding::new(
                RULE,
                &path,
                "add `license.workspace = true`: all of this is Apache-2.0",
            ));
        }
        findings.extend(check_manifest(manifest)?);
    }
    let root = workspace.file("Cargo.toml").context("the root manifest was not read")?;
    findings.extend(check_reasons(root));
    Ok(findings)
}

/// Lints from the workspace, and every dependency by `workspace = true`.
fn check_manifest(manifest: &TextFile) -> Result<Vec<Finding>> {
    let table: Table = toml::from_str(&manifest.text).with_context(|| format!("parse {}", manifest.path))?;
    let mut findings = Vec::new();
    let lints = table.get("lints").and_then(|lints| lints.get("workspace")).and_then(toml::Value::as_bool);
    if lints != Some(true) {
        findings.push(Finding::new(RULE, &manifest.path, "add `[lints]` with `workspace = true`"));
    }
    if table.get("package").and_then(|package| package.get("description")).is_none() {
        findings.push(Finding::new(
            RULE,
            &manifest.path,
            "add a `description`: one line on what the crate is for",
        ));
    }
    let mut lists: Vec<&Table> = dependency_lists(&table).collect();
    if let Some(targets) = table.get("target").and_then(toml::Value::as_table) {
        lists.extend(targets.values().filter_map(toml::Value::as_table).flat_map(dependency_lists));
    }
    for (name, value) in lists.into_iter().flatten() {
        if value.get("workspace").and_then(toml::Value::as_bool) != Some(true) {
            let advice = format!(
                "`{name}` is pinned here; pin it in [workspace.dependencies] of the root, with a reason"
            );
            findings.push(Finding::new(RULE, &manifest.path, advice));
        }
    }
    Ok(findings)
}

fn dependency_lists(table: &Table) -> impl Iterator<Item = &Table> {
    ["dependencies", "dev-dependencies", "build-dependencies"]
        .into_iter()
        .filter_map(|key| table.get(key).and_then(toml::Value::as_table))
}

/// Each outside crate of the root has a comment on the line above it.
fn check_reasons(root: &TextFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut inside = false;
    let mut before = "";
    for (index, line) in root.text.lines().enumerate() {
        if line.starts_with('[') {
            inside = line == "[workspace.dependencies]";
        } else if inside && line.contains('=') && !line.starts_with('#') {
            let reason = before.starts_with("# ") && !before.starts_with("# ---");
            if !reason && !line.contains("path = ") {
                let name = line.split([' ', '=']).next().unwrap_or(line);
                let advice = format!("say on the line above why `{name}` was chosen");
                findings.push(Finding::new(RULE, format!("{}:{}", root.path, index + 1), advice));
            }
        }
        before = line;
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> TextFile {
        TextFile { path: "Cargo.toml".to_owned(), text: text.to_owned() }
    }

    #[test]
    fn a_manifest_without_lints_or_description_is_found() {
        let findings = check_manifest(&file("[package]\nname = \"x\"\n")).unwrap();
        assert_eq!(findings.len(), 2, "{findings:?}");
        let whole = "[package]\nname = \"x\"\ndescription = \"y\"\n[lints]\nworkspace = true\n";
        assert_eq!(check_manifest(&file(whole)).unwrap(), []);
    }

    #[test]
    fn a_version_pinned_in_a_crate_is_found() {
        let head = "[package]\ndescription = \"y\"\n[lints]\nworkspace = true\n";
        for list in ["dependencies", "dev-dependencies", "target.\"cfg(loom)\".dependencies"] {
            let pinned = check_manifest(&file(&format!("{head}[{list}]\nlibc = \"0.2\"\n"))).unwrap();
            assert_eq!(pinned.len(), 1, "{list}: {pinned:?}");
            let shared = check_manifest(&file(&format!("{head}[{list}]\nlibc.workspace = true\n"))).unwrap();
            assert_eq!(shared, [], "{list}");
        }
    }

    #[test]
    fn an_outside_crate_without_a_reason_is_found() {
        let text = "[workspace.dependencies]\n# --- ours\nours = { path = \"x\" }\n# Why.\ngood = \"1\"\nbad = \"1\"\n";
        let findings = check_reasons(&file(text));
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].place, "Cargo.toml:6");
        assert!(findings[0].advice.contains("`bad`"));
    }

    #[test]
    fn a_publishable_or_unlicensed_crate_is_found() {
        let one = crate::workspace::Crate { folder: "a".to_owned(), publishable: true, ..Default::default() };
        let manifest = TextFile {
            path: "a/Cargo.toml".to_owned(),
            text: "[package]\ndescription = \"y\"\n[lints]\nworkspace = true\n".to_owned(),
        };
        let root = file("[workspace]\n");
        let workspace = Workspace { crates: vec![one], files: vec![manifest, root], ..Workspace::default() };
        assert_eq!(check(&workspace).unwrap().len(), 2);
    }
}
