//! Requests of the wire as commands of the log.

use nova_api::files as pb;
use nova_api::files::request::Op as Ask;
use novafs_namespace::{
    Block, CloseFile, Collected, CommitFile, EndSession, Link, MakeDirectory, MakeSymlink, NewFile, Op,
    OpenFile, OpenSession, Publish, PurgeTrash, Remove, RemoveXattr, Rename, SetAttributes, SetQuota,
    SetSpace, SetXattr, Truncate, Undelete,
};

/// The command for a request that changes something. Requests that read, renew or reserve have none: they come back.
pub(crate) fn command(ask: Ask) -> Result<Op, Ask> {
    Ok(match ask {
        Ask::OpenSession(ask) => Op::OpenSession(OpenSession { lease_ms: ask.lease_ms }),
        Ask::Collected(ask) => Op::Collected(Collected {
            first_blocks: ask.first_blocks,
            blocks: ask.blocks,
            bytes: ask.bytes,
            full_pass_ms: ask.full_pass_ms,
            purge_bytes: ask.purge_bytes,
        }),
        Ask::CloseSession(ask) => Op::EndSession(EndSession { session: ask.session }),
        Ask::Publish(ask) => Op::Publish(publish(ask)),
        Ask::MakeDirectory(ask) => Op::MakeDirectory(MakeDirectory {
            path: ask.path,
            mode: ask.mode,
            parents: ask.parents,
            base: ask.base,
            uid: ask.uid,
            gid: ask.gid,
        }),
        Ask::Rename(ask) => Op::Rename(Rename {
            source: ask.source,
            target: ask.target,
            replace: ask.replace,
            source_base: ask.source_base,
            target_base: ask.target_base,
            exchange: ask.exchange,
            no_replace: ask.no_replace,
        }),
        // The limit of the wire is not needed: a tree goes out of sight in one step, however large.
        Ask::Remove(ask) => {
            Op::Remove(Remove { path: ask.path, recursive: ask.recursive, base: ask.base, only: ask.only })
        }
        Ask::OpenFile(ask) => Op::OpenFile(OpenFile {
            session: ask.session,
            base: ask.base,
            path: ask.path,
            create: ask.create,
            exclusive: ask.exclusive,
            truncate: ask.truncate,
            mode: ask.mode,
            uid: ask.uid,
            gid: ask.gid,
        }),
        Ask::CommitFile(ask) => Op::CommitFile(CommitFile {
            session: ask.session,
            inode: ask.inode,
            bytes: ask.bytes,
            blocks: ask.blocks.into_iter().map(block).collect(),
            modified_ns: ask.modified_ns,
            trimmed: ask.trimmed,
            close: ask.close,
        }),
        Ask::CloseFile(ask) => Op::CloseFile(CloseFile { session: ask.session, inode: ask.inode }),
        Ask::Truncate(ask) => {
            Op::Truncate(Truncate { session: ask.session, inode: ask.inode, bytes: ask.bytes })
        }
        Ask::SetAttributes(ask) => Op::SetAttributes(SetAttributes {
            base: ask.base,
            path: ask.path,
            mode: ask.mode,
            uid: ask.uid,
            gid: ask.gid,
            modified_ns: ask.modified_ns,
            accessed_ns: ask.accessed_ns,
        }),
        Ask::Link(ask) => Op::Link(Link {
            source_base: ask.source_base,
            source: ask.source,
            target_base: ask.target_base,
            target: ask.target,
        }),
        Ask::MakeSymlink(ask) => Op::MakeSymlink(MakeSymlink {
            base: ask.base,
            path: ask.path,
            target: ask.target,
            uid: ask.uid,
            gid: ask.gid,
        }),
        Ask::SetXattr(ask) => Op::SetXattr(SetXattr {
            base: ask.base,
            path: ask.path,
            name: ask.name,
            value: ask.value.to_vec(),
            create_only: ask.create_only,
            replace_only: ask.replace_only,
        }),
        Ask::RemoveXattr(ask) => {
            Op::RemoveXattr(RemoveXattr { base: ask.base, path: ask.path, name: ask.name })
        }
        Ask::SetQuota(ask) => Op::SetQuota(SetQuota {
            base: ask.base,
            path: ask.path,
            bytes_max: ask.bytes_max,
            files_max: ask.files_max,
        }),
        Ask::SetSpace(ask) => Op::SetSpace(SetSpace {
            name: ask.name,
            retention_ms: ask.retention_ms,
            replicas: ask.replicas,
            key_domain: ask.key_domain,
            undelete_ms: ask.undelete_ms,
            unit_log2: ask.unit_log2,
        }),
        Ask::Undelete(ask) => Op::Undelete(Undelete { id: ask.id, target: ask.target }),
        Ask::PurgeTrash(ask) => Op::PurgeTrash(PurgeTrash { id: ask.id }),
        other => return Err(other),
    })
}

fn publish(wire: pb::Publish) -> Publish {
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
        blocks: wire.blocks.into_iter().map(block).collect(),
        sha256: wire.sha256.to_vec(),
        base: wire.base,
        uid: wire.uid,
        gid: wire.gid,
        modified_ns: wire.modified_ns,
    }
}

/// The salt goes no further: it is in the unit records.
fn block(wire: pb::Block) -> Block {
    Block {
        block: wire.block,
        group: wire.group,
        bytes: wire.bytes,
        generation: wire.generation,
        salt: Vec::new(),
        unit_log2: wire.unit_log2,
        key_domain: wire.key_domain,
        key_version: wire.key_version,
        root: wire.root.to_vec(),
        offset: wire.offset,
        sparse: wire.sparse,
    }
}
