//! Whole states compared: the namespace with what is expected of it, and with what the stores hold.

use std::collections::{BTreeMap, BTreeSet};

use nova_units::{BlockId, GroupId, UnitIndex};
use novafs_format::SealedUnit;
use novafs_format::digest::{BlockDigest, BlockHeader};
use novafs_format::seal::SUITE_AES256GCM_SHA256_CRC32;
use novafs_namespace::{Kind, ListAsk, Namespace, StoredBlock, Totals};

use crate::expected::Expected;
use crate::files::blocks_of;
use crate::files_group::FILES_ERA;
use crate::rest::{Copies, Held};

/// Entries of a page of the listings here: small, so that the cookie is used.
const PAGE_ENTRIES: u32 = 5;
/// Findings that are told of one kind.
const TOLD_MAX: usize = 4;

/// What a namespace holds, found by walking through it.
#[derive(Debug, Default)]
struct Found {
    files: BTreeSet<String>,
    directories: BTreeSet<String>,
    inodes: BTreeSet<u64>,
    wrong: Vec<String>,
}

impl Found {
    fn in_namespace(namespace: &Namespace) -> Self {
        let mut found = Self::default();
        found.walk(namespace, "");
        found
    }

    /// Sums over what lies below `directory`; every file and directory has one name, and the sums that are kept agree.
    fn walk(&mut self, namespace: &Namespace, directory: &str) -> Totals {
        let mut sums = Totals::default();
        let (mut after, mut names) = (String::new(), BTreeSet::new());
        let asked = if directory.is_empty() { "/" } else { directory };
        loop {
            let ask = ListAsk { path: asked, after: &after, limit: PAGE_ENTRIES, ..ListAsk::default() };
            let page = match namespace.list(&ask) {
                Ok(page) => page,
                Err(failure) => {
                    self.wrong.push(format!("{asked} cannot be listed: {failure:?}"));
                    return sums;
                }
            };
            for entry in &page.entries {
                after = entry.name.to_string();
                names.insert(after.clone());
                let path = format!("{directory}/{}", entry.name);
                if !self.inodes.insert(entry.inode.0) {
                    self.wrong.push(format!("{} has two names, one is {path}", entry.inode));
                }
                match entry.kind {
                    Kind::Directory => {
                        let below = self.walk(namespace, &path);
                        sums.files += below.files;
                        sums.directories += below.directories + 1;
                        sums.bytes += below.bytes;
                        sums.blocks += below.blocks;
                        self.directories.insert(path);
                    }
                    Kind::File => {
                        sums.files += 1;
                        sums.bytes += entry.stored_bytes;
                        match namespace.open_inode(entry.inode) {
                            Ok((inode, _)) => {
                                sums.blocks += blocks_of(&inode).len() as u64;
                            }
                            Err(failure) => self.wrong.push(format!("{path} cannot be opened: {failure:?}")),
                        }
                        self.files.insert(path);
                    }
                    Kind::Symlink => self.wrong.push(format!("{path} is a link, and nobody makes any")),
                }
            }
            if !page.more {
                break;
            }
        }
        let by_cookie = names_by_cookie(namespace, asked);
        if by_cookie != names {
            self.wrong.push(format!("by cookies {asked} has {by_cookie:?}, by names {names:?}"));
        }
        match namespace.usage(0, asked) {
            Ok((kept, _)) if kept == sums => {}
            kept => self.wrong.push(format!("the sums of {asked} are {kept:?}, a recount gives {sums:?}")),
        }
        sums
    }
}

/// The names in a directory, as its cookies lead through it.
fn names_by_cookie(namespace: &Namespace, directory: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut after = 0;
    loop {
        let after_cookie = Some(after);
        let ask = ListAsk { path: directory, after_cookie, limit: PAGE_ENTRIES, ..ListAsk::default() };
        let Ok(page) = namespace.list(&ask) else { return names };
        names.extend(page.entries.iter().map(|entry| entry.name.to_string()));
        match page.entries.last().filter(|_| page.more) {
            Some(last) => after = last.cookie,
            None => return names,
        }
    }
}

/// What is wrong in a namespace: its tree, its sums, its sessions and its block ids.
pub(crate) fn compare(namespace: &Namespace, expected: &Expected) -> Vec<String> {
    let mut found = Found::in_namespace(namespace);
    let mut wrong = std::mem::take(&mut found.wrong);
    let due: BTreeSet<String> = expected.files().keys().cloned().collect();
    wrong.extend(differ("files", "an acknowledged file is gone or another appears", &found.files, &due));
    wrong.extend(differ("directories", "the tree differs", &found.directories, expected.directories()));
    for (path, row) in expected.files() {
        let opened = namespace.open(0, path).ok();
        if let Err(what) =
            expected.judge_open(path, opened.as_ref().map(|(inode, entry)| (entry, inode.as_ref())))
        {
            wrong.push(format!("{what} ({row:?})"));
        }
    }
    let open: BTreeSet<u64> = namespace.sessions().map(|(id, _)| id.0).collect();
    wrong.extend(differ("sessions", "other sessions are open", &open, expected.sessions()));
    for (id, session) in namespace.sessions() {
        let runs = session.reserved.iter().map(|(first, run)| (*first, run.count));
        let reserved: BTreeSet<u64> = runs.flat_map(ids).collect();
        let what = format!("the blocks of {id}");
        wrong.extend(differ(&what, "other blocks are reserved", &reserved, &expected.reserved(id.0)));
    }
    let orphans: BTreeSet<u64> =
        namespace.orphans().map(|(first, run)| (first, run.count)).flat_map(ids).collect();
    // What no path leads to is in the trash, or waits to be taken apart; its blocks become orphans then.
    let unnamed = namespace.inodes().filter(|(id, _)| !found.inodes.contains(&id.0));
    let waiting: BTreeSet<u64> =
        unnamed.flat_map(|(_, inode)| blocks_of(inode)).map(|block| block.block.0).collect();
    let gone = expected.gone();
    let due = gone.difference(&waiting).copied().collect();
    wrong.extend(differ("orphans", "other blocks are orphans", &orphans, &due));
    let kept = waiting.difference(&gone).copied().collect();
    wrong.extend(differ("its blocks", "the trash differs", &kept, &expected.blocks_in_trash()));
    match namespace.list_trash("", 0, 0) {
        Ok(page) => {
            let found = page.items.iter().map(|(number, item)| (*number, item.path.to_string())).collect();
            let due = expected.trash().map(|(number, path)| (number, path.to_owned())).collect();
            wrong.extend(differ("its items", "the trash differs", &found, &due));
        }
        Err(failure) => wrong.push(format!("the trash cannot be listed: {failure:?}")),
    }
    wrong.truncate(TOLD_MAX);
    wrong
}

fn ids((first, count): (BlockId, u32)) -> impl Iterator<Item = u64> {
    first.0..first.0 + u64::from(count)
}

fn differ<T: Ord + std::fmt::Debug>(
    of: &str,
    what: &str,
    found: &BTreeSet<T>,
    due: &BTreeSet<T>,
) -> Option<String> {
    if found == due {
        return None;
    }
    let extra: Vec<_> = found.difference(due).take(TOLD_MAX).collect();
    let missing: Vec<_> = due.difference(found).take(TOLD_MAX).collect();
    Some(format!("{what}: {of} too much {extra:?}, missing {missing:?}"))
}

/// Referenced = reachable: every block of a file is whole and sound on every member of its group, and every block that
/// a member holds belongs to a file, in a directory or in the trash, waits for collection, or is reserved by a session
/// that lives.
pub(crate) fn reachable(namespace: &Namespace, held: &Held) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut known: BTreeMap<u64, Vec<GroupId>> = BTreeMap::new();
    // What is in the trash can be had back.
    for block in namespace.inodes().flat_map(|(_, inode)| blocks_of(inode)) {
        known.insert(block.block.0, vec![block.group]);
        let Some(members) = held.get(&block.group) else {
            wrong.push(format!("{} is referenced in {}, which does not exist", block.block, block.group));
            continue;
        };
        for (node, copies) in members {
            if let Err(what) = check_block(block, copies) {
                wrong.push(format!("{} is referenced and not reachable on {node}: {what}", block.block));
            }
        }
    }
    for (first, orphan) in namespace.orphans() {
        known.extend(ids((first, orphan.count)).map(|id| (id, orphan.groups.to_vec())));
    }
    for (_, session) in namespace.sessions() {
        for (first, run) in &session.reserved {
            known.extend(ids((*first, run.count)).map(|id| (id, run.groups.to_vec())));
        }
    }
    for (group, members) in held {
        for (node, copies) in members {
            let blocks: BTreeSet<BlockId> = copies.keys().map(|(block, _)| *block).collect();
            for block in blocks.into_iter().filter(|block| block.era() == FILES_ERA) {
                if !known.get(&block.0).is_some_and(|groups| groups.contains(group)) {
                    wrong.push(format!("{node} holds {block} in {group} and nobody knows of it"));
                }
            }
        }
    }
    wrong.truncate(TOLD_MAX);
    wrong
}

/// Every unit of the block is there, its bytes have its digest, and all of them make the root that was published.
fn check_block(block: &StoredBlock, copies: &Copies) -> Result<(), String> {
    let mut digest = BlockDigest::new(BlockHeader {
        block: block.block,
        group: block.group,
        domain: block.key_domain,
        version: block.key_version,
        unit_log2: block.unit_log2,
        suite: SUITE_AES256GCM_SHA256_CRC32,
    });
    let units = block.bytes.div_ceil(1 << block.unit_log2);
    for unit in 0..u16::try_from(units).expect("a block has at most 32,768 units") {
        let unit = UnitIndex(unit);
        let Some((_, encoded, sound)) = copies.get(&(block.block, unit)) else {
            return Err(format!("{unit} is missing"));
        };
        let sealed = SealedUnit::decode(encoded).map_err(|error| format!("{unit}: {error}"))?;
        if *sound != Some(sealed.digest) {
            return Err(format!("{unit} has other bytes than its digest says"));
        }
        digest.set(unit, sealed.digest);
    }
    if Some(digest.root()) == block.root { Ok(()) } else { Err("its root is another".to_owned()) }
}
