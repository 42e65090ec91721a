//! `nova fs fsck`: the file metadata against what the members hold. Reads only.
//!
//! The metadata and the lists are of different moments, so whatever differs is looked at twice: it counts when it
//! differs still, a while later, from the metadata of then.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use nova_api::cluster as pb;
use nova_api::cluster::check_finding::Kind;
use nova_api::cluster::check_reply::Reply;
use nova_groups::Role;
use nova_raft::Group;
use nova_units::{BlockId, GroupId, NodeId};
use novafs_namespace::{BlockUse, Census, Namespace};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tonic::Status;

use crate::attendance::Attendance;
use crate::collection::PAGE_BLOCKS;
use crate::machine::{Cluster, Files};

/// What differs at the first look is kept up to this number; the summary says how many were not.
const SUSPECTS_MAX: usize = 1_000_000;
/// Findings that are told one by one; all are counted.
const FINDINGS_TOLD_MAX: usize = 10_000;
/// Between the two looks: commits reach every member, and orders under way end.
const SETTLE: Duration = Duration::from_secs(2);
/// How often a member that does not answer is asked.
const ASKED_MAX: usize = 3;

type Replies = mpsc::Sender<Result<pb::CheckReply, Status>>;

/// Something that differed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Suspect {
    group: GroupId,
    node: NodeId,
    block: BlockId,
    kind: Kind,
}

/// Whoever asked is gone, or a task failed.
struct Ended;

/// One comparison.
pub(crate) struct Check {
    cluster: Group<Cluster>,
    files: Group<Files>,
    attendance: Arc<Attendance>,
    replies: Replies,
}

impl Check {
    pub(crate) fn new(
        cluster: Group<Cluster>,
        files: Group<Files>,
        attendance: Arc<Attendance>,
        replies: Replies,
    ) -> Self {
        Self { cluster, files, attendance, replies }
    }

    /// Where the replies go.
    pub(crate) fn replies(&self) -> Replies {
        self.replies.clone()
    }

    /// Compares, and tells what it finds as it goes on.
    pub(crate) async fn run(self) {
        if self.compare().await.is_err() {
            // Nobody may be there to hear it.
            let _ =
                self.replies.send(Err(Status::internal("the check failed: see the controller's log"))).await;
        }
    }

    async fn compare(&self) -> Result<(), Ended> {
        let before = census(self.files.local().0.namespace).await?;
        let (copies, joining) = self.copies();
        let members = u32::try_from(copies.len()).unwrap_or(u32::MAX);
        let (mut suspects, mut silent, mut held, mut left_out) = (Vec::new(), Vec::new(), 0, 0);
        for (done, (group, node)) in (0..).zip(copies) {
            self.tell(Reply::Progress(pb::CheckProgress {
                members_done: done,
                members_total: members,
                blocks_held: held,
            }))
            .await?;
            match self.list(group, node).await {
                Some(blocks) => {
                    held += blocks.len() as u64;
                    let found = differences(&before, group, node, &blocks);
                    left_out += keep(&mut suspects, found, SUSPECTS_MAX);
                }
                None => silent.push(Suspect { group, node, block: BlockId(0), kind: Kind::Silent }),
            }
        }
        let mut findings = silent;
        if !suspects.is_empty() {
            tokio::time::sleep(SETTLE).await;
            let after = census(self.files.local().0.namespace).await?;
            suspects.sort_unstable();
            findings.extend(self.look_again(&suspects, &before, &after).await);
        }
        self.tell_findings(&findings).await?;
        self.tell(Reply::Summary(pb::CheckSummary {
            blocks_referenced: before.file_blocks(),
            blocks_reserved: before.reserved_blocks(),
            blocks_waiting: before.orphan_blocks(),
            blocks_held: held,
            members,
            members_joining: joining,
            findings: findings.len() as u64,
            suspects_left_out: left_out,
        }))
        .await
    }

    /// Every copy of a group that counts, and how many are being filled.
    fn copies(&self) -> (Vec<(GroupId, NodeId)>, u32) {
        let (mut copies, mut joining) = (Vec::new(), 0);
        for (id, group) in self.cluster.local().0.groups.iter() {
            for member in &group.members {
                match member.role {
                    Role::InSync => copies.push((id, member.node)),
                    Role::Joining => joining += 1,
                }
            }
        }
        (copies, joining)
    }

    async fn page(&self, group: GroupId, node: NodeId, from: BlockId) -> Option<pb::BlocksHeld> {
        for _ in 0..ASKED_MAX {
            if let Some(page) = self.attendance.list_blocks(node, group, from, PAGE_BLOCKS).await {
                return Some(page);
            }
        }
        None
    }

    /// All blocks of a group that a member holds, in ascending order. `None`: it does not answer.
    async fn list(&self, group: GroupId, node: NodeId) -> Option<Vec<BlockId>> {
        let (mut blocks, mut from) = (Vec::new(), BlockId(0));
        loop {
            let page = self.page(group, node, from).await?;
            blocks.extend(page.blocks.iter().map(|block| BlockId(*block)));
            match page.blocks.last().filter(|_| page.more).and_then(|last| last.checked_add(1)) {
                Some(next) => from = BlockId(next),
                None => return Some(blocks),
            }
        }
    }

    /// What of the suspects, which are in order, differs still.
    async fn look_again(&self, suspects: &[Suspect], before: &Census, after: &Census) -> Vec<Suspect> {
        let mut findings = Vec::new();
        for copy in suspects.chunk_by(|one, next| (one.group, one.node) == (next.group, next.node)) {
            let (group, node) = (copy[0].group, copy[0].node);
            let (mut held, mut known_to) = (BTreeSet::new(), None);
            for suspect in copy {
                if known_to.is_none_or(|known_to| known_to < suspect.block) {
                    let Some(page) = self.page(group, node, suspect.block).await else {
                        findings.push(Suspect { kind: Kind::Silent, block: BlockId(0), ..*suspect });
                        break;
                    };
                    let last = page.blocks.last().filter(|_| page.more);
                    known_to = Some(last.map_or(BlockId(u64::MAX), |last| BlockId(*last)));
                    held = page.blocks.into_iter().collect();
                }
                let there = held.contains(&suspect.block.0);
                if judge(suspect.block, group, there, before) == Some(suspect.kind)
                    && judge(suspect.block, group, there, after) == Some(suspect.kind)
                {
                    findings.push(*suspect);
                }
            }
        }
        findings
    }

    async fn tell_findings(&self, findings: &[Suspect]) -> Result<(), Ended> {
        let told = &findings[..findings.len().min(FINDINGS_TOLD_MAX)];
        let blocks: BTreeSet<BlockId> = told.iter().map(|finding| finding.block).collect();
        let namespace = self.files.local().0.namespace;
        let owners = spawn_blocking(move || namespace.owners(&blocks)).await.map_err(|_| Ended)?;
        for finding in told {
            let owner = Some(finding.block).filter(|_| finding.kind != Kind::Silent);
            let inode = owner.and_then(|block| owners.get(&block)).map_or(0, |inode| inode.0);
            self.tell(Reply::Finding(pb::CheckFinding {
                kind: finding.kind.into(),
                node: finding.node.0,
                group: finding.group.0,
                block: finding.block.0,
                inode,
            }))
            .await?;
        }
        Ok(())
    }

    async fn tell(&self, reply: Reply) -> Result<(), Ended> {
        self.replies.send(Ok(pb::CheckReply { reply: Some(reply) })).await.map_err(|_| Ended)
    }
}

async fn census(namespace: Namespace) -> Result<Census, Ended> {
    spawn_blocking(move || Census::of(&namespace)).await.map_err(|error| {
        tracing::error!(%error, "the census of the blocks failed");
        Ended
    })
}

/// Keeps what there is room for; answers how many were not kept.
fn keep(suspects: &mut Vec<Suspect>, found: Vec<Suspect>, most: usize) -> u64 {
    let room = most.saturating_sub(suspects.len()).min(found.len());
    let left_out = found.len() - room;
    suspects.extend(found.into_iter().take(room));
    left_out as u64
}

/// What is wrong with a block that a member of `group` holds, or does not.
fn judge(block: BlockId, group: GroupId, there: bool, census: &Census) -> Option<Kind> {
    match (census.use_of(block), there) {
        (BlockUse::File { group: of, filled: true }, false) if of == group => Some(Kind::Missing),
        (BlockUse::File { group: of, .. }, true) if of != group => Some(Kind::Misplaced),
        (BlockUse::Gone, true) => Some(Kind::Unknown),
        _ => None,
    }
}

/// What differs between the metadata and one member's list, which is in ascending order.
fn differences(census: &Census, group: GroupId, node: NodeId, held: &[BlockId]) -> Vec<Suspect> {
    let missing = census.filled_in(group).into_iter().filter(|block| held.binary_search(block).is_err());
    let all = missing.map(|block| (block, false)).chain(held.iter().map(|block| (*block, true)));
    all.filter_map(|(block, there)| {
        judge(block, group, there, census).map(|kind| Suspect { group, node, block, kind })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use novafs_namespace::{
        Block, Command, NewFile, Op, OpenSession, Publish, Purge, PurgeTrash, Remove, ReserveBlocks, Sweep,
    };

    use super::*;

    /// Blocks 1 and 2 are in files of group 1 and 2, 3 is an orphan, 4 is reserved; 5 was not given out.
    fn metadata() -> Namespace {
        let mut namespace = Namespace::default();
        let mut index = 0;
        let mut apply = |op| {
            index += 1;
            namespace.apply(index, &Command { client: 0, sequence: 0, at_ms: 1, op: Some(op) });
        };
        apply(Op::OpenSession(OpenSession { lease_ms: 0 }));
        apply(Op::ReserveBlocks(ReserveBlocks { session: 1, count: 4, groups: vec![1, 2] }));
        let file = |path: &str, number: u64, group: u32| {
            let block = Block {
                block: BlockId::new(1, number).0,
                group,
                bytes: 10,
                generation: 1,
                salt: vec![1; 16],
                unit_log2: 16,
                key_domain: 1,
                key_version: 1,
                root: vec![],
                offset: 0,
                ..Block::default()
            };
            let (path, blocks) = (path.to_owned(), vec![block]);
            NewFile { path, bytes: 10, blocks, ..NewFile::default() }
        };
        let files = vec![file("/hot/a", 1, 1), file("/hot/b", 2, 2), file("/hot/c", 3, 1)];
        apply(Op::Publish(Publish { session: 1, files, make_parents: false, replace: false }));
        apply(Op::Remove(Remove { path: "/hot/c".into(), ..Remove::default() }));
        apply(Op::PurgeTrash(PurgeTrash { id: 0 }));
        apply(Op::Purge(Purge { limit: 100, now_ms: 0, early: false }));
        apply(Op::Sweep(Sweep { limit: 100 }));
        namespace
    }

    #[test]
    fn suspects_without_room_are_counted() {
        let suspect = |number| Suspect {
            group: GroupId(1),
            node: NodeId(9),
            block: BlockId::new(1, number),
            kind: Kind::Missing,
        };
        let (mut kept, found) = (Vec::new(), |range: std::ops::Range<u64>| range.map(suspect).collect());
        assert_eq!(keep(&mut kept, found(0..2), 3), 0);
        assert_eq!(keep(&mut kept, found(2..5), 3), 2);
        assert_eq!(keep(&mut kept, found(5..6), 3), 1);
        assert_eq!(kept, [0, 1, 2].map(suspect));
    }

    #[test]
    fn what_is_missing_unknown_or_in_another_group_differs_and_nothing_else() {
        let (census, node) = (Census::of(&metadata()), NodeId(9));
        let id = |number| BlockId::new(1, number);
        let found = |group, held: &[u64]| {
            let held: Vec<_> = held.iter().map(|number| id(*number)).collect();
            let found = differences(&census, GroupId(group), node, &held);
            found.into_iter().map(|suspect| (suspect.kind, suspect.block)).collect::<Vec<_>>()
        };
        assert_eq!(found(1, &[1]), [], "an orphan need not be there");
        assert_eq!(found(1, &[1, 3, 4, 5]), [], "orphans, reserved blocks and later ones may be");
        assert_eq!(found(1, &[]), [(Kind::Missing, id(1))]);
        assert_eq!(found(1, &[1, 2]), [(Kind::Misplaced, id(2))]);
        let mut collected = metadata();
        let gone = novafs_namespace::Collected { first_blocks: vec![id(3).0], ..Default::default() };
        collected.apply(9, &Command { op: Some(Op::Collected(gone)), ..Command::default() });
        let found = differences(&Census::of(&collected), GroupId(1), node, &[id(1), id(3)]);
        assert_eq!(found, [Suspect { group: GroupId(1), node, block: id(3), kind: Kind::Unknown }]);
    }
}
