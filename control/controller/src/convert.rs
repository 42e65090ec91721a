//! File messages on the wire and in the log.

use nova_api::files as pb;
use nova_api::files::response::Result as Wire;
use novafs_namespace::{
    Answer, Block, EntryView, Failure, File, Kind, ListPage, MakeDirectory, NewFile, OpenSession, Publish,
    Remove, Rename, Reply, StoredBlock, Totals,
};

pub(crate) fn open_session(wire: pb::OpenSession) -> OpenSession {
    OpenSession { lease_ms: wire.lease_ms }
}

pub(crate) fn publish(wire: pb::Publish) -> Publish {
    Publish {
        session: wire.session,
        files: wire.files.into_iter().map(new_file).collect(),
        make_parents: wire.make_parents,
        replace: wire.replace,
    }
}

fn new_file(wire: pb::NewFile) -> NewFile {
    NewFile {
        path: wire.path,
        mode: wire.mode,
        modified_ms: wire.modified_ms,
        bytes: wire.bytes,
        blocks: wire.blocks.into_iter().map(new_block).collect(),
        sha256: wire.sha256.to_vec(),
        base: wire.base,
        uid: wire.uid,
        gid: wire.gid,
        modified_ns: wire.modified_ns,
    }
}

fn new_block(wire: pb::Block) -> Block {
    Block {
        block: wire.block,
        group: wire.group,
        bytes: wire.bytes,
        generation: wire.generation,
        salt: wire.salt.to_vec(),
        unit_log2: wire.unit_log2,
        key_domain: wire.key_domain,
        key_version: wire.key_version,
        root: wire.root.to_vec(),
        offset: wire.offset,
        sparse: wire.sparse,
    }
}

pub(crate) fn make_directory(wire: pb::MakeDirectory) -> MakeDirectory {
    MakeDirectory {
        path: wire.path,
        mode: wire.mode,
        parents: wire.parents,
        base: wire.base,
        uid: wire.uid,
        gid: wire.gid,
    }
}

pub(crate) fn rename(wire: pb::Rename) -> Rename {
    Rename {
        source: wire.source,
        target: wire.target,
        replace: wire.replace,
        source_base: wire.source_base,
        target_base: wire.target_base,
        exchange: wire.exchange,
        no_replace: wire.no_replace,
    }
}

/// The limit of the wire is not needed: a tree goes out of sight in one step, however large.
pub(crate) fn remove(wire: pb::Remove) -> Remove {
    Remove { path: wire.path, recursive: wire.recursive, base: wire.base, only: wire.only }
}

pub(crate) fn failure(failure: Failure) -> Wire {
    Wire::Failure(wire_failure(failure))
}

/// The numbers of codes are the same on both sides; a test holds them together.
fn wire_failure(failure: Failure) -> pb::Failure {
    pb::Failure { code: failure.code, path: failure.path, message: failure.message }
}

pub(crate) fn answer(answer: Answer) -> Wire {
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
        Some(Reply::Done(_) | Reply::Swept(_)) | None => Wire::Done(pb::Done {}),
    }
}

pub(crate) fn entry(view: &EntryView) -> pb::Entry {
    let kind = match view.kind {
        Kind::File => pb::entry::Kind::File,
        Kind::Directory => pb::entry::Kind::Directory,
    };
    pb::Entry {
        name: view.name.to_string(),
        inode: view.inode.0,
        kind: kind.into(),
        bytes: view.bytes,
        mode: view.mode,
        modified_ms: view.modified.0,
        created_ms: view.created.0,
        children: view.children,
        sha256: digest(view.sha256),
        ..pb::Entry::default()
    }
}

fn digest<B: From<Vec<u8>>>(digest: Option<[u8; 32]>) -> B {
    digest.map_or_else(Vec::new, |digest| digest.to_vec()).into()
}

pub(crate) fn listing(page: &ListPage) -> pb::Listing {
    pb::Listing {
        entries: page.entries.iter().map(entry).collect(),
        more: page.more,
        ..pb::Listing::default()
    }
}

pub(crate) fn resolved(view: &EntryView, file: &File) -> pb::Resolved {
    pb::Resolved { entry: Some(entry(view)), blocks: file.blocks.iter().map(stored_block).collect() }
}

fn stored_block(block: &StoredBlock) -> pb::Block {
    pb::Block {
        block: block.block.0,
        group: block.group.0,
        bytes: block.bytes.into(),
        generation: block.generation.0,
        salt: block.salt.to_vec().into(),
        unit_log2: block.unit_log2.into(),
        key_domain: block.key_domain,
        key_version: block.key_version,
        root: digest(block.root),
        offset: block.offset,
        ..pb::Block::default()
    }
}

pub(crate) fn usage(totals: Totals) -> pb::UsageReport {
    pb::UsageReport {
        files: totals.files,
        directories: totals.directories,
        bytes: totals.bytes,
        blocks: totals.blocks,
        ..pb::UsageReport::default()
    }
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
    }
}
