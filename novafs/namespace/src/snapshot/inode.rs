//! Inodes as rows of a snapshot.

use std::sync::Arc;

use nova_units::{BlockId, Generation, GroupId, InodeId, Timestamp};

use super::SnapshotError;
use crate::apply::optional_digest;
use crate::model::{
    Directory, Extra, File, Inode, Name, Node, OtherName, Quota, StoredBlock, Totals, nanoseconds,
};

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct InodeRow {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    parent: u64,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(uint32, tag = "4")]
    mode: u32,
    #[prost(uint64, tag = "5")]
    modified_ms: u64,
    #[prost(uint64, tag = "6")]
    created_ms: u64,
    #[prost(message, optional, tag = "7")]
    file: Option<FileRow>,
    #[prost(message, optional, tag = "8")]
    directory: Option<DirectoryRow>,
    #[prost(uint32, tag = "9")]
    uid: u32,
    #[prost(uint32, tag = "10")]
    gid: u32,
    #[prost(uint32, tag = "11")]
    turn: u32,
    /// With the other times in nanoseconds only from version 2 on; the milliseconds are 0 then.
    #[prost(uint64, optional, tag = "12")]
    modified_ns: Option<u64>,
    #[prost(uint64, tag = "13")]
    accessed_ns: u64,
    #[prost(uint64, tag = "14")]
    changed_ns: u64,
    #[prost(uint64, tag = "15")]
    created_ns: u64,
    #[prost(string, optional, tag = "16")]
    symlink: Option<String>,
    #[prost(message, repeated, tag = "17")]
    names: Vec<NameRow>,
    #[prost(message, repeated, tag = "18")]
    xattrs: Vec<XattrRow>,
    #[prost(uint64, optional, tag = "19")]
    cookie: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct NameRow {
    #[prost(uint64, tag = "1")]
    parent: u64,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(uint64, tag = "3")]
    cookie: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct XattrRow {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TotalsRow {
    #[prost(uint64, tag = "1")]
    files: u64,
    #[prost(uint64, tag = "2")]
    directories: u64,
    #[prost(uint64, tag = "3")]
    bytes: u64,
    #[prost(uint64, tag = "4")]
    blocks: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct FileRow {
    #[prost(uint64, tag = "1")]
    bytes: u64,
    #[prost(bytes = "vec", tag = "2")]
    sha256: Vec<u8>,
    #[prost(message, repeated, tag = "3")]
    blocks: Vec<BlockRow>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct BlockRow {
    // Tag 6 was the salt, which is in the unit records now.
    #[prost(uint64, tag = "1")]
    block: u64,
    #[prost(uint32, tag = "2")]
    group: u32,
    #[prost(uint64, tag = "3")]
    offset: u64,
    #[prost(uint32, tag = "4")]
    bytes: u32,
    #[prost(uint32, tag = "5")]
    generation: u32,
    #[prost(uint32, tag = "7")]
    unit_log2: u32,
    #[prost(uint32, tag = "8")]
    key_domain: u32,
    #[prost(uint32, tag = "9")]
    key_version: u32,
    #[prost(bytes = "vec", tag = "10")]
    root: Vec<u8>,
    #[prost(bool, tag = "11")]
    sparse: bool,
    #[prost(bool, tag = "12")]
    trim_pending: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DirectoryRow {
    #[prost(uint64, tag = "1")]
    children: u64,
    #[prost(uint64, tag = "2")]
    files: u64,
    #[prost(uint64, tag = "3")]
    directories: u64,
    #[prost(uint64, tag = "4")]
    bytes: u64,
    #[prost(uint64, tag = "5")]
    blocks: u64,
    #[prost(uint32, tag = "6")]
    height: u32,
    #[prost(uint64, tag = "7")]
    bytes_max: u64,
    #[prost(uint64, tag = "8")]
    files_max: u64,
}

pub(super) fn totals_row(totals: Totals) -> TotalsRow {
    let Totals { files, directories, bytes, blocks } = totals;
    TotalsRow { files, directories, bytes, blocks }
}

pub(super) fn totals(row: TotalsRow) -> Totals {
    let TotalsRow { files, directories, bytes, blocks } = row;
    Totals { files, directories, bytes, blocks }
}

fn digest_row(digest: Option<&[u8; 32]>) -> Vec<u8> {
    digest.map_or_else(Vec::new, |digest| digest.to_vec())
}

pub(super) fn row(id: InodeId, inode: &Inode) -> InodeRow {
    let mut row = InodeRow {
        id: id.0,
        parent: inode.parent.0,
        name: inode.name.to_string(),
        mode: inode.mode,
        uid: inode.uid,
        gid: inode.gid,
        turn: inode.turn.0,
        modified_ns: Some(inode.modified_ns),
        accessed_ns: inode.accessed_ns,
        changed_ns: inode.changed_ns,
        created_ns: inode.created_ns,
        ..InodeRow::default()
    };
    if let Some(extra) = &inode.extra {
        row.cookie = extra.cookie;
        let name = |other: &OtherName| NameRow {
            parent: other.parent.0,
            name: other.name.to_string(),
            cookie: other.cookie,
        };
        row.names = extra.names.iter().map(name).collect();
        let xattr = |(name, value): (&str, &[u8])| XattrRow { name: name.to_owned(), value: value.to_vec() };
        row.xattrs = inode.xattrs().map(xattr).collect();
    }
    match &inode.node {
        Node::File(file) => {
            row.file = Some(FileRow {
                bytes: file.bytes,
                sha256: digest_row(file.sha256.as_deref()),
                blocks: file.blocks.iter().map(block_row).collect(),
            });
        }
        Node::Directory(directory) => {
            row.directory = Some(DirectoryRow {
                children: directory.children,
                files: directory.totals.files,
                directories: directory.totals.directories,
                bytes: directory.totals.bytes,
                blocks: directory.totals.blocks,
                height: directory.height,
                bytes_max: directory.quota.bytes_max,
                files_max: directory.quota.files_max,
            });
        }
        Node::Symlink(target) => row.symlink = Some(target.to_string()),
    }
    row
}

fn block_row(block: &StoredBlock) -> BlockRow {
    BlockRow {
        block: block.block.0,
        group: block.group.0,
        offset: block.offset,
        bytes: block.bytes,
        generation: block.generation.0,
        unit_log2: block.unit_log2.into(),
        key_domain: block.key_domain,
        key_version: block.key_version,
        root: digest_row(block.root.as_ref()),
        sparse: block.sparse,
        trim_pending: block.trim_pending,
    }
}

pub(super) fn read(row: InodeRow) -> Result<(InodeId, Inode), SnapshotError> {
    let mut turn = row.turn;
    let node = match (row.file, row.directory, row.symlink) {
        (Some(file), None, None) => {
            let blocks: Box<[StoredBlock]> =
                file.blocks.into_iter().map(block_of).collect::<Result<_, _>>()?;
            if turn == 0 {
                turn = blocks.iter().map(|block| block.generation.0).max().unwrap_or(1).max(1);
            }
            let sha256 = optional_digest(&file.sha256).ok_or(SnapshotError::Damaged("a digest"))?;
            Node::File(File { bytes: file.bytes, sha256: sha256.map(Box::new), blocks })
        }
        (None, Some(directory), None) => Node::Directory(Box::new(Directory {
            children: directory.children,
            totals: Totals {
                files: directory.files,
                directories: directory.directories,
                bytes: directory.bytes,
                blocks: directory.blocks,
            },
            height: directory.height,
            quota: Quota { bytes_max: directory.bytes_max, files_max: directory.files_max },
        })),
        (None, None, Some(target)) => Node::Symlink(target.into()),
        _ => return Err(SnapshotError::Damaged("an inode")),
    };
    let [modified_ns, accessed_ns, changed_ns, created_ns] = match row.modified_ns {
        Some(modified_ns) => [modified_ns, row.accessed_ns, row.changed_ns, row.created_ns],
        None => {
            let [modified, created] = [row.modified_ms, row.created_ms].map(|ms| nanoseconds(Timestamp(ms)));
            [modified, modified, modified.max(created), created]
        }
    };
    let name = |name: NameRow| OtherName {
        parent: InodeId(name.parent),
        name: Name::from(name.name),
        cookie: name.cookie,
    };
    let extra = Extra {
        names: row.names.into_iter().map(name).collect(),
        cookie: row.cookie,
        xattrs: row.xattrs.into_iter().map(|xattr| (xattr.name.into(), xattr.value.into())).collect(),
    };
    let inode = Inode {
        parent: InodeId(row.parent),
        name: Arc::from(row.name),
        mode: row.mode,
        uid: row.uid,
        gid: row.gid,
        turn: Generation(turn),
        modified_ns,
        accessed_ns,
        changed_ns,
        created_ns,
        extra: (!extra.is_empty()).then(|| Box::new(extra)),
        node,
    };
    Ok((InodeId(row.id), inode))
}

fn block_of(row: BlockRow) -> Result<StoredBlock, SnapshotError> {
    let damaged = || SnapshotError::Damaged("a block");
    Ok(StoredBlock {
        block: BlockId(row.block),
        group: GroupId(row.group),
        offset: row.offset,
        bytes: row.bytes,
        generation: Generation(row.generation),
        unit_log2: u8::try_from(row.unit_log2).map_err(|_| damaged())?,
        key_domain: row.key_domain,
        key_version: row.key_version,
        sparse: row.sparse,
        trim_pending: row.trim_pending,
        root: optional_digest(&row.root).ok_or_else(damaged)?,
    })
}
