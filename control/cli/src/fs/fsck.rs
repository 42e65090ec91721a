//! `nova fs fsck`: does what the hosts store agree with the file metadata?

mod block;
pub(super) mod deep;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use nova_api::cluster::check_finding::Kind;
use nova_api::cluster::check_reply::Reply;
use nova_api::cluster::{CheckFinding, CheckSummary};
use serde::Serialize;

use crate::arguments::Global;
use crate::cluster;
use crate::dev::region::Region;
use crate::exit::{self, Stop};
use crate::output;
use crate::progress::Meter;

/// Findings that are shown to a person one by one; scripts get all.
const SHOWN_MAX: usize = 50;

/// What was compared and what differs.
#[derive(Debug, Serialize)]
struct View {
    /// Blocks that files have.
    blocks_referenced: u64,
    /// Blocks that open writer sessions have reserved.
    blocks_reserved: u64,
    /// Blocks that wait to be collected.
    blocks_waiting: u64,
    /// Blocks that all members together hold.
    blocks_held: u64,
    /// Copies of groups that were compared.
    members: u32,
    /// Copies left out because they are being filled.
    members_joining: u32,
    /// All findings; those past the limit of the controllers are counted and not listed.
    findings_total: u64,
    /// What differed at the first look and was too much for a second one: nothing is known of it.
    suspects_left_out: u64,
    findings: Vec<FindingView>,
}

#[derive(Debug, Serialize)]
struct FindingView {
    kind: &'static str,
    node: u64,
    host: String,
    group: u32,
    /// Null for a silent member.
    block: Option<u64>,
    /// Inode of the file that has the block; null when no file has.
    inode: Option<u64>,
}

/// Lets the controllers compare, and shows the outcome.
pub(super) fn run(global: &Global) -> anyhow::Result<()> {
    let region = Region::load(&global.region_folder()?)?;
    let hosts: BTreeMap<u64, String> =
        cluster::map_of(&region)?.nodes.into_iter().map(|node| (node.node, node.name)).collect();
    let mut meter = Meter::steps(global.progress);
    meter.say("reading the file metadata");
    let (mut findings, mut summary) = (Vec::new(), None);
    cluster::check(&region, |reply| match reply {
        Reply::Progress(done) => meter.say(format!(
            "{} of {} copies of groups compared, {} blocks",
            done.members_done, done.members_total, done.blocks_held
        )),
        Reply::Finding(finding) => findings.push(finding),
        Reply::Summary(told) => summary = Some(told),
    })?;
    drop(meter);
    let summary =
        summary.ok_or_else(|| Stop::unavailable("the check ended without a result: run it again"))?;
    let view = View::of(&summary, &findings, &hosts);
    output::print(global.json, &view, View::text)?;
    if view.suspects_left_out > 0 {
        let message = format!(
            "{} more blocks differed at the first look and were too many to be looked at again: mend what is told, then \
             run it again",
            view.suspects_left_out
        );
        return Err(Stop::new(exit::Kind::Failed, message).into());
    }
    if view.findings_total == 0 {
        return Ok(());
    }
    let silent = findings.iter().all(|finding| finding.kind() == Kind::Silent);
    Err(if silent {
        Stop::unavailable("members did not answer, so nothing is known of them: run it again when they do")
    } else {
        Stop::new(
            exit::Kind::Failed,
            format!("{} differences between the file metadata and what is stored", view.findings_total),
        )
        .into()
    })
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Missing => "missing",
        Kind::Unknown => "unknown",
        Kind::Misplaced => "misplaced",
        Kind::Silent => "silent",
        Kind::Unspecified => "other",
    }
}

impl View {
    fn of(summary: &CheckSummary, findings: &[CheckFinding], hosts: &BTreeMap<u64, String>) -> Self {
        let view = |finding: &CheckFinding| FindingView {
            kind: word(finding.kind()),
            node: finding.node,
            host: hosts.get(&finding.node).cloned().unwrap_or_else(|| format!("node {}", finding.node)),
            group: finding.group,
            block: (finding.kind() != Kind::Silent).then_some(finding.block),
            inode: (finding.inode != 0).then_some(finding.inode),
        };
        Self {
            blocks_referenced: summary.blocks_referenced,
            blocks_reserved: summary.blocks_reserved,
            blocks_waiting: summary.blocks_waiting,
            blocks_held: summary.blocks_held,
            members: summary.members,
            members_joining: summary.members_joining,
            findings_total: summary.findings,
            suspects_left_out: summary.suspects_left_out,
            findings: findings.iter().map(view).collect(),
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let number = |number: Option<u64>| number.map_or_else(String::new, |number| number.to_string());
        let rows: Vec<_> = self
            .findings
            .iter()
            .take(SHOWN_MAX)
            .map(|finding| {
                [
                    finding.kind.to_owned(),
                    finding.host.clone(),
                    finding.group.to_string(),
                    number(finding.block),
                    number(finding.inode),
                ]
            })
            .collect();
        if !rows.is_empty() {
            text.push_str(&output::table(["FINDING", "HOST", "GROUP", "BLOCK", "INODE"], &[2, 3, 4], &rows));
        }
        let left = self.findings_total.saturating_sub(rows.len() as u64);
        if left > 0 {
            text.push_str(&format!("and {left} more; --json lists them\n"));
        }
        writeln!(
            text,
            "{} blocks of files, {} reserved, {} waiting for collection; {} held by {} copies of groups{}: {}",
            self.blocks_referenced,
            self.blocks_reserved,
            self.blocks_waiting,
            self.blocks_held,
            self.members,
            match self.members_joining {
                0 => String::new(),
                joining => format!(" ({joining} being filled were left out)"),
            },
            match self.findings_total {
                0 if self.suspects_left_out == 0 => "all agree".to_owned(),
                findings => format!("{findings} findings"),
            }
        )
        .expect("writing to a String does not fail");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(findings: &[CheckFinding]) -> View {
        let summary = CheckSummary {
            blocks_referenced: 10,
            blocks_reserved: 20,
            blocks_waiting: 3,
            blocks_held: 30,
            members: 3,
            members_joining: 0,
            findings: findings.len() as u64,
            suspects_left_out: 0,
        };
        View::of(&summary, findings, &[(4, "storage-1".to_owned())].into())
    }

    #[test]
    fn findings_name_host_block_and_file() {
        let finding =
            |kind: Kind, node, inode| CheckFinding { kind: kind.into(), node, group: 7, block: 99, inode };
        let found = view(&[finding(Kind::Missing, 4, 12), finding(Kind::Silent, 5, 0)]);
        let json = serde_json::to_value(&found).unwrap();
        assert_eq!(
            (&json["findings"][0]["kind"], &json["findings"][0]["inode"]),
            (&"missing".into(), &12.into())
        );
        assert_eq!(json["findings"][1]["block"], serde_json::Value::Null);
        let text = found.text();
        assert!(text.contains("missing  storage-1      7     99     12"), "{text}");
        assert!(text.contains("silent   node 5"), "{text}");
        assert!(text.ends_with("30 held by 3 copies of groups: 2 findings\n"), "{text}");
    }

    #[test]
    fn what_was_left_out_is_not_said_to_agree() {
        let left_out = View { suspects_left_out: 7, ..view(&[]) };
        assert!(left_out.text().ends_with("0 findings\n"), "{}", left_out.text());
    }

    #[test]
    fn a_region_without_findings_says_so() {
        assert!(view(&[]).text().ends_with("all agree\n"));
    }
}
