//! Answers of the file metadata as messages of the wire.

use std::time::Duration;

use nova_api::files as pb;
use nova_api::files::response::Result as Wire;
use nova_units::InodeId;
use novafs_namespace::{
    Answer, BlockMap, Capacity, EntryView, Failure, Inode, Kind, ListPage, NAME_BYTES_MAX, Namespace, Quota,
    Reply, Space, StoredBlock, Totals, TrashPage, Trashed,
};

/// `st_blocks` counts these.
const STAT_BLOCK_BYTES: u64 = 512;

pub(crate) fn failure(failure: Failure) -> Wire {
    Wire::Failure(wire_failure(failure))
}

/// The numbers of codes are the same on both sides; a test holds them together.
fn wire_failure(failure: Failure) -> pb::Failure {
    pb::Failure { code: failure.code, path: failure.path, message: failure.message }
}

/// What `apply` answered. What it only names is looked up in `state`, in which the command is applied: a file that is
/// gone again already is stale.
pub(crate) fn answer(answer: Answer, state: &Namespace) -> Wire {
    let found = |inode: u64, cookie: u64| state.entry(InodeId(inode), cookie);
    match answer.result {
        Some(Reply::Failure(refused)) => failure(refused),
        Some(Reply::SessionOpened(opened)) => Wire::SessionOpened(pb::SessionOpened {
            session: opened.session,
            lease_ms: opened.lease_ms,
            era: opened.era,
        }),
        Some(Reply::BlocksReserved(reserved)) => Wire::BlocksReserved(pb::BlocksReserved {
            first_block: reserved.first_block,
            count: reserved.count,
            groups: reserved.groups,
            ..pb::BlocksReserved::default()
        }),
        Some(Reply::Published(published)) => Wire::Published(pb::Published {
            outcomes: published
                .outcomes
                .into_iter()
                .map(|outcome| pb::PublishOutcome {
                    inode: outcome.inode,
                    failure: outcome.failure.map(wire_failure),
                })
                .collect(),
        }),
        Some(Reply::Touched(touched)) => match found(touched.inode, touched.cookie) {
            Ok((_, view)) => Wire::Entry(entry(&view)),
            Err(gone) => failure(gone),
        },
        Some(Reply::Resized(touched)) => match found(touched.inode, touched.cookie) {
            Ok((inode, view)) => Wire::Resolved(resolved(&inode, &view)),
            Err(gone) => failure(gone),
        },
        Some(Reply::Opened(opened)) => match found(opened.inode, opened.cookie) {
            Ok((inode, view)) => Wire::FileOpened(pb::FileOpened {
                file: Some(resolved(&inode, &view)),
                generation: opened.generation,
                created: opened.created,
            }),
            Err(gone) => failure(gone),
        },
        Some(Reply::Done(_) | Reply::Swept(_)) | None => Wire::Done(pb::Done {}),
    }
}

pub(crate) fn entry(view: &EntryView) -> pb::Entry {
    let kind = match view.kind {
        Kind::File => pb::entry::Kind::File,
        Kind::Directory => pb::entry::Kind::Directory,
        Kind::Symlink => pb::entry::Kind::Symlink,
    };
    pb::Entry {
        name: view.name.to_string(),
        inode: view.inode.0,
        kind: kind.into(),
        bytes: view.bytes,
        mode: view.mode,
        modified_ms: view.modified().0,
        created_ms: view.created().0,
        children: view.children,
        sha256: digest(view.sha256),
        uid: view.uid,
        gid: view.gid,
        links: view.links,
        cookie: view.cookie,
        modified_ns: view.modified_ns,
        accessed_ns: view.accessed_ns,
        changed_ns: view.changed_ns,
        link_target: view.link_target.as_deref().unwrap_or_default().to_owned(),
        path: String::new(),
        blocks: view.stored_bytes.div_ceil(STAT_BLOCK_BYTES),
        created_ns: view.created_ns,
        space: view.space.as_ref().map(space),
        xattrs: view.xattrs,
    }
}

fn space(space: &Space) -> pb::Space {
    pb::Space {
        retention_ms: space.retention.map_or(0, millis),
        replicas: space.replicas.get(),
        key_domain: space.key_domain,
        undelete_ms: millis(space.undelete),
        unit_log2: space.unit_log2.into(),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn digest<B: From<Vec<u8>>>(digest: Option<[u8; 32]>) -> B {
    digest.map_or_else(Vec::new, |digest| digest.to_vec()).into()
}

pub(crate) fn listing(page: &ListPage) -> pb::Listing {
    let map = |map: &BlockMap| pb::BlockMap {
        blocks: map.blocks.iter().map(stored_block).collect(),
        left_out: map.left_out,
    };
    pb::Listing {
        entries: page.entries.iter().map(entry).collect(),
        more: page.more,
        maps: page.maps.iter().map(map).collect(),
    }
}

pub(crate) fn resolved(inode: &Inode, view: &EntryView) -> pb::Resolved {
    let blocks = inode.file().map_or(&[][..], |file| &file.blocks);
    pb::Resolved { entry: Some(entry(view)), blocks: blocks.iter().map(stored_block).collect() }
}

fn stored_block(block: &StoredBlock) -> pb::Block {
    pb::Block {
        block: block.block.0,
        group: block.group.0,
        bytes: block.bytes.into(),
        generation: block.generation.0,
        salt: Vec::new().into(),
        unit_log2: block.unit_log2.into(),
        key_domain: block.key_domain,
        key_version: block.key_version,
        root: digest(block.root),
        offset: block.offset,
        sparse: block.sparse,
        trim_pending: block.trim_pending,
    }
}

pub(crate) fn usage((totals, quota): (Totals, Quota)) -> pb::UsageReport {
    pb::UsageReport {
        files: totals.files,
        directories: totals.directories,
        bytes: totals.bytes,
        blocks: totals.blocks,
        bytes_max: quota.bytes_max,
        files_max: quota.files_max,
    }
}

pub(crate) fn xattrs(inode: &Inode) -> pb::XattrList {
    let xattr =
        |(name, value): (&str, &[u8])| pb::Xattr { name: name.to_owned(), value: value.to_vec().into() };
    pb::XattrList { xattrs: inode.xattrs().map(xattr).collect() }
}

pub(crate) fn statfs(room: Capacity) -> pb::StatfsReport {
    pb::StatfsReport {
        bytes_total: room.bytes_total,
        bytes_free: room.bytes_free,
        files: room.files,
        files_max: room.files_max,
        name_bytes_max: u32::try_from(NAME_BYTES_MAX).expect("a name has at most 255 bytes"),
    }
}

pub(crate) fn trash(page: &TrashPage) -> pb::TrashListing {
    let item = |(id, trashed): &(u64, Trashed)| pb::Trashed {
        id: *id,
        path: trashed.path.to_string(),
        removed_ms: trashed.removed.0,
        files: trashed.weight.files,
        bytes: trashed.weight.bytes,
        purge_ms: trashed.purge.0,
    };
    pb::TrashListing { entries: page.items.iter().map(item).collect(), more: page.more }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_same_number_and_name_on_the_wire() {
        for number in 0..=20 {
            let ours = novafs_namespace::Code::try_from(number).unwrap();
            let wire = pb::failure::Code::try_from(number).unwrap();
            assert_eq!(format!("{ours:?}"), format!("{wire:?}"));
        }
        assert!(novafs_namespace::Code::try_from(21).is_err() && pb::failure::Code::try_from(21).is_err());
        for number in 0..=2 {
            let ours = novafs_namespace::Only::try_from(number).unwrap();
            let wire = pb::remove::Only::try_from(number).unwrap();
            assert_eq!(format!("{ours:?}"), format!("{wire:?}"));
        }
    }
}
