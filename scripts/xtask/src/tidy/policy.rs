//! Licences, bans and sources of every package in the graph, as `deny.toml` states them.
//!
//! The file has the shape that cargo-deny reads, so that either tool may be used; keys we do not check are
//! refused rather than ignored.

mod licence;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::finding::Finding;
use crate::workspace::{Package, Workspace};

const PATH: &str = "deny.toml";

/// What `deny.toml` says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Policy {
    licenses: Licences,
    bans: Bans,
    sources: Sources,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Licences {
    allow: Vec<String>,
    #[serde(default)]
    exceptions: Vec<Exception>,
}

/// A licence allowed for one package only.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bans {
    deny: Vec<Ban>,
}

/// A package nobody may use, but for the packages in `wrappers`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    #[serde(default)]
    wrappers: Vec<String>,
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Sources {
    /// cargo-deny's own switch; here every source that is not listed is refused, so it must say "deny".
    unknown_registry: String,
    /// As above.
    unknown_git: String,
    allow_registry: Vec<String>,
}

/// Packages that break the policy.
///
/// # Errors
/// When `deny.toml` is missing or is not understood.
pub(super) fn check(workspace: &Workspace) -> Result<Vec<Finding>> {
    let file = workspace
        .file(PATH)
        .context("deny.toml is missing; it says which licences and sources are allowed")?;
    let policy: Policy = toml::from_str(&file.text).context("parse deny.toml")?;
    let mut findings = check_packages(&policy, &workspace.packages);
    let edges = workspace.crates.iter().flat_map(|one| one.edges.iter().map(move |edge| (one, edge)));
    findings.extend(edges.filter(|(_, edge)| !edge.ours && edge.requirement == "*").map(|(one, edge)| {
        Finding::new(
            "ban",
            &one.folder,
            format!("`{}` takes any version; pin one in the root manifest", edge.to),
        )
    }));
    Ok(findings)
}

fn check_packages(policy: &Policy, packages: &[Package]) -> Vec<Finding> {
    let mut findings = Vec::new();
    if policy.sources.unknown_registry != "deny" || policy.sources.unknown_git != "deny" {
        findings.push(Finding::new("source", PATH, "unknown-registry and unknown-git must be \"deny\""));
    }
    for package in packages {
        findings.extend(check_licence(policy, package));
        findings.extend(check_source(policy, package));
        for ban in policy.bans.deny.iter().filter(|ban| ban.name == package.name) {
            findings.extend(check_ban(ban, package));
        }
    }
    findings
}

fn check_licence(policy: &Policy, package: &Package) -> Option<Finding> {
    let place = format!("{} {}", package.name, package.version);
    let Some(expression) = package.licence.as_deref() else {
        return Some(Finding::new("licence", place, "the package states no licence; do without it"));
    };
    let allowed = |name: &str| {
        policy.licenses.allow.iter().any(|allowed| allowed == name)
            || policy.licenses.exceptions.iter().any(|exception| {
                exception.name == package.name && exception.allow.iter().any(|allowed| allowed == name)
            })
    };
    match licence::is_satisfied(expression, &allowed) {
        Some(true) => None,
        Some(false) => {
            let advice = format!(
                "`{expression}` is not allowed; do without the package, or add an exception to {PATH}"
            );
            Some(Finding::new("licence", place, advice))
        }
        None => Some(Finding::new("licence", place, format!("`{expression}` is not an SPDX expression"))),
    }
}

fn check_source(policy: &Policy, package: &Package) -> Option<Finding> {
    let source = package.source.as_deref()?;
    let known = policy.sources.allow_registry.iter().any(|url| source.strip_prefix("registry+") == Some(url));
    (!known).then(|| {
        let advice = format!("it comes from {source}; take it from a registry listed in {PATH}");
        Finding::new("source", format!("{} {}", package.name, package.version), advice)
    })
}

fn check_ban(ban: &Ban, package: &Package) -> Vec<Finding> {
    let reason = ban.reason.trim_end_matches('.');
    if ban.wrappers.is_empty() {
        let advice = format!("banned: {reason}; it is used by {}", package.users.join(", "));
        return vec![Finding::new("ban", format!("{} {}", package.name, package.version), advice)];
    }
    let strangers = package.users.iter().filter(|user| !ban.wrappers.contains(user));
    strangers
        .map(|user| {
            let advice =
                format!("may not use {}: {reason}; the packages that may are in {PATH}", package.name);
            Finding::new("ban", user, advice)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = r#"
        [licenses]
        allow = ["MIT", "Apache-2.0"]
        exceptions = [{ crate = "imbl", allow = ["MPL-2.0"] }]
        [bans]
        deny = [
            { crate = "openssl", reason = "One TLS is enough." },
            { crate = "tokio", wrappers = ["nova-raft"], reason = "The data plane has a runtime." },
        ]
        [sources]
        unknown-registry = "deny"
        unknown-git = "deny"
        allow-registry = ["https://registry.example/index"]
    "#;

    fn package(name: &str, licence: &str) -> Package {
        Package {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            licence: Some(licence.to_owned()),
            source: Some("registry+https://registry.example/index".to_owned()),
            users: vec!["nova-raft".to_owned()],
        }
    }

    fn findings(package: Package) -> Vec<Finding> {
        check_packages(&toml::from_str(POLICY).unwrap(), &[package])
    }

    #[test]
    fn an_allowed_package_passes() {
        assert_eq!(findings(package("good", "MIT OR GPL-3.0-only")), []);
        assert_eq!(findings(package("tokio", "MIT")), []);
    }

    #[test]
    fn a_licence_outside_the_list_is_found_and_an_exception_holds_for_one_package() {
        assert_eq!(findings(package("bad", "GPL-3.0-only"))[0].rule, "licence");
        assert_eq!(findings(package("imbl", "MPL-2.0+")), []);
        assert_eq!(findings(package("other", "MPL-2.0+"))[0].rule, "licence");
        assert_eq!(findings(Package { licence: None, ..package("none", "") })[0].rule, "licence");
    }

    #[test]
    fn a_banned_package_and_a_stranger_to_a_wall_are_found() {
        assert_eq!(findings(package("openssl", "MIT"))[0].rule, "ban");
        let found = findings(Package { users: vec!["novafs-store".to_owned()], ..package("tokio", "MIT") });
        assert_eq!((found[0].rule, found[0].place.as_str()), ("ban", "novafs-store"));
    }

    #[test]
    fn another_registry_or_git_is_found() {
        for source in ["git+https://example.org/x", "registry+https://elsewhere.example"] {
            let found = findings(Package { source: Some(source.to_owned()), ..package("good", "MIT") });
            assert_eq!(found[0].rule, "source");
        }
        assert_eq!(findings(Package { source: None, ..package("ours", "MIT") }), []);
    }

    #[test]
    fn an_unknown_key_in_the_policy_is_refused() {
        assert!(toml::from_str::<Policy>(&POLICY.replace("[bans]", "[bans]\nhighlight = \"all\"")).is_err());
    }
}
