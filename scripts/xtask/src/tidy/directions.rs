//! Which crate may know which. The picture is in `ARCHITECTURE.md`; this is the table behind it.

use cargo_metadata::DependencyKind;

use crate::finding::Finding;
use crate::workspace::Crate;

const RULE: &str = "crate direction";

/// What the code of the crate in a folder may use; dev-dependencies follow [`may_test_with`].
const MAY_USE: [(&str, &[&str]); 43] = [
    ("dataplane/units", &[]),
    ("dataplane/buf", &["nova-units"]),
    ("dataplane/device", &["nova-units", "nova-buf"]),
    ("dataplane/keybox", &[]),
    ("dataplane/profile", &["nova-units"]),
    ("dataplane/ring", &["nova-units"]),
    ("dataplane/shard", &["nova-units", "nova-buf", "nova-device"]),
    (
        "dataplane/daemon",
        &[
            "nova-units",
            "nova-buf",
            "nova-device",
            "nova-shard",
            "nova-ring",
            "nova-profile",
            "nova-keybox",
            "novafs-format",
            "novafs-replica",
            "novafs-store",
            "novafs-member",
            "novafs-edge",
            "novabulk-frame",
            "novabulk-transfer",
            "novabulk-link",
            "novabulk-tls",
        ],
    ),
    ("novafs/format", &["nova-units"]),
    ("novafs/replica", &["nova-units", "novafs-format"]),
    ("novafs/namespace", &["nova-units"]),
    ("novafs/store", &["nova-units", "nova-buf", "nova-device", "novafs-format"]),
    (
        "novafs/member",
        &["nova-units", "nova-buf", "nova-device", "novafs-format", "novafs-replica", "novafs-store"],
    ),
    ("novafs/edge", &["nova-units", "nova-buf", "nova-device", "novafs-format", "novafs-replica"]),
    ("novafs/client", &["nova-units", "nova-ring", "nova-api"]),
    ("novafs/fuse", &["novafs-client"]),
    ("novabulk/frame", &["nova-units"]),
    ("novabulk/transfer", &["nova-units", "novabulk-frame"]),
    ("novabulk/tls", &["nova-units", "nova-buf", "nova-device"]),
    (
        "novabulk/link",
        &["nova-units", "nova-buf", "nova-device", "novabulk-frame", "novabulk-transfer", "novabulk-tls"],
    ),
    ("novabulk/codec", &[]),
    ("novabulk/files", &[]),
    (
        "novabulk/copy",
        &[
            "nova-units",
            "nova-buf",
            "nova-device",
            "nova-shard",
            "novabulk-files",
            "novabulk-link",
            "novabulk-tls",
        ],
    ),
    ("novabulk/tool", &["nova-buf", "nova-device", "nova-shard", "novabulk-copy", "novabulk-tls"]),
    ("control/fleet", &["nova-units"]),
    ("control/groups", &["nova-units"]),
    ("control/keys", &["nova-units"]),
    ("control/state", &["nova-units", "nova-fleet", "nova-groups", "nova-keys", "novafs-namespace"]),
    ("control/api", &[]),
    ("control/raft", &["nova-units", "nova-api", "nova-security"]),
    ("control/security", &["nova-units"]),
    (
        "control/controller",
        &[
            "nova-units",
            "nova-state",
            "nova-fleet",
            "nova-groups",
            "nova-keys",
            "nova-keybox",
            "novafs-namespace",
            "nova-raft",
            "nova-api",
            "nova-security",
        ],
    ),
    ("control/agent", &["nova-units", "nova-ring", "nova-api", "nova-security"]),
    (
        "control/cli",
        &[
            "nova-units",
            "novafs-client",
            "novafs-fuse",
            "novafs-format",
            "nova-api",
            "nova-security",
            "nova-profile",
            "nova-ring",
        ],
    ),
    (
        "bench/micro",
        &[
            "nova-units",
            "nova-buf",
            "nova-device",
            "nova-shard",
            "nova-ring",
            "novafs-format",
            "novafs-store",
            "novabulk-frame",
            "novabulk-link",
            "novabulk-tls",
        ],
    ),
    ("bench/measure", &["nova-path"]),
    ("bench/model", &["nova-units", "nova-groups"]),
    ("bench/path", &[]),
    (
        "bench/power",
        &["nova-units", "nova-buf", "nova-device", "nova-shard", "novafs-format", "novafs-store"],
    ),
    ("bench/storage", &["nova-path", "nova-measure", "novafs-client"]),
    ("bench/transfer", &["nova-path", "nova-measure"]),
    (
        "bench/sim",
        &[
            "nova-units",
            "nova-buf",
            "nova-device",
            "novafs-format",
            "novafs-replica",
            "novafs-store",
            "novafs-member",
            "novafs-edge",
            "novafs-namespace",
            "nova-fleet",
            "nova-groups",
            "nova-state",
        ],
    ),
    ("scripts/xtask", &[]),
];

/// Edges that point where they may not, and crates or rows that have no counterpart.
pub(super) fn check(crates: &[Crate]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for one in crates {
        let Some((_, allowed)) = MAY_USE.iter().find(|(folder, _)| *folder == one.folder) else {
            let advice = format!(
                "{} has no row in MAY_USE; add one to scripts/xtask/src/tidy/directions.rs and a line to ARCHITECTURE.md",
                one.name
            );
            findings.push(Finding::new(RULE, &one.folder, advice));
            continue;
        };
        for edge in one.edges.iter().filter(|edge| edge.ours) {
            let permitted = allowed.contains(&edge.to.as_str())
                || (edge.kind == DependencyKind::Development && may_test_with(one, &edge.to, crates));
            if !permitted {
                let advice = format!(
                    "{} may not depend on {}; move what is needed below both, or write an ADR and widen MAY_USE",
                    one.name, edge.to
                );
                findings.push(Finding::new(RULE, &one.folder, advice));
            }
        }
    }
    let gone = MAY_USE.iter().filter(|(folder, _)| crates.iter().all(|one| one.folder != *folder));
    findings.extend(gone.map(|(folder, _)| {
        Finding::new(
            RULE,
            *folder,
            "the crate is gone; delete its row in MAY_USE and its line in ARCHITECTURE.md",
        )
    }));
    findings
}

/// Tests may use every crate of their own district and the data plane's, but novafs and novabulk stay strangers.
fn may_test_with(one: &Crate, to: &str, crates: &[Crate]) -> bool {
    let district = |folder: &str| folder.split('/').next().map(str::to_owned);
    let Some(target) = crates.iter().find(|other| other.name == to) else { return false };
    district(&target.folder) == district(&one.folder)
        || (target.folder.starts_with("dataplane/") && target.folder != "dataplane/daemon")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Edge;

    fn house() -> Vec<Crate> {
        MAY_USE
            .iter()
            .map(|(folder, _)| Crate {
                name: match *folder {
                    "novafs/store" => "novafs-store".to_owned(),
                    "novabulk/link" => "novabulk-link".to_owned(),
                    "dataplane/shard" => "nova-shard".to_owned(),
                    other => other.replace('/', "-"),
                },
                folder: (*folder).to_owned(),
                ..Crate::default()
            })
            .collect()
    }

    fn with_edge(from: &str, to: &str, kind: DependencyKind) -> Vec<Crate> {
        let mut crates = house();
        let one = crates.iter_mut().find(|one| one.folder == from).unwrap();
        one.edges.push(Edge { to: to.to_owned(), kind, requirement: "*".to_owned(), ours: true });
        crates
    }

    #[test]
    fn the_drawn_edges_pass() {
        assert_eq!(check(&house()), []);
        assert_eq!(check(&with_edge("novafs/store", "nova-buf", DependencyKind::Normal)), []);
    }

    #[test]
    fn novafs_may_not_know_novabulk_even_in_tests() {
        for kind in [DependencyKind::Normal, DependencyKind::Development] {
            let findings = check(&with_edge("novafs/store", "novabulk-link", kind));
            assert_eq!(findings.len(), 1, "{findings:?}");
            assert_eq!(findings[0].place, "novafs/store");
            assert!(findings[0].advice.contains("novabulk-link"), "{}", findings[0]);
        }
    }

    #[test]
    fn tests_may_use_the_shard_that_code_may_not() {
        assert_eq!(check(&with_edge("novabulk/link", "nova-shard", DependencyKind::Development)), []);
        assert_eq!(check(&with_edge("novabulk/link", "nova-shard", DependencyKind::Normal)).len(), 1);
    }

    #[test]
    fn a_crate_without_a_row_and_a_row_without_a_crate_are_found() {
        let mut crates = house();
        crates[0].folder = "dataplane/extra".to_owned();
        let places: Vec<_> = check(&crates).into_iter().map(|finding| finding.place).collect();
        assert_eq!(places, ["dataplane/extra", "dataplane/units"]);
    }
}
