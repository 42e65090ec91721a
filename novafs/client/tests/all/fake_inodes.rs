//! Files that are opened and written in place, as metadata keeps them.
use std::collections::BTreeMap;

use nova_api::files::failure::Code;
use nova_api::files::request::Op;
use nova_api::files::response::Result as Answer;
use nova_api::files::{self as api, Block, Entry, NewFile, Resolved, entry::Kind as EntryKind};

use super::fake_agent::failure;

#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub(super) bytes: u64,
    pub(super) blocks: Vec<Block>,
    pub(super) turn: u32,
    pub(super) writer: Option<u64>,
    pub(super) modified_ns: u64,
    pub(super) mode: u32,
}

#[derive(Default)]
pub(super) struct Inodes {
    names: BTreeMap<String, u64>,
    pub(super) nodes: BTreeMap<u64, Node>,
    pub(super) commits: u32,
}

impl Node {
    fn entry(&self, inode: u64) -> Entry {
        Entry {
            inode,
            kind: EntryKind::File.into(),
            bytes: self.bytes,
            mode: self.mode,
            modified_ns: self.modified_ns,
            ..Entry::default()
        }
    }

    fn resolved(&self, inode: u64) -> Resolved {
        Resolved { entry: Some(self.entry(inode)), blocks: self.blocks.clone() }
    }

    /// What the writer may have left behind the length is to be cut by the next.
    fn writer_is_gone(&mut self) {
        self.writer = None;
        for block in &mut self.blocks {
            block.trim_pending |= block.sparse;
        }
    }
}

impl Inodes {
    fn add(&mut self, path: &str, node: Node) -> u64 {
        let inode = 100 + self.nodes.len() as u64;
        self.nodes.insert(inode, node);
        self.names.insert(path.into(), inode);
        inode
    }

    pub(super) fn publish(&mut self, file: &NewFile) -> u64 {
        let (bytes, blocks, mode) = (file.bytes, file.blocks.clone(), file.mode);
        self.add(&file.path, Node { bytes, blocks, mode, ..Node::default() })
    }

    pub(super) fn end_writers(&mut self) {
        self.nodes.values_mut().filter(|node| node.writer.is_some()).for_each(Node::writer_is_gone);
    }

    /// A path of an inode.
    pub(super) fn path_of(&self, inode: u64) -> Option<String> {
        self.names.iter().find(|(_, of)| **of == inode).map(|(path, _)| path.clone())
    }

    pub(super) fn at(&mut self, path: &str) -> &mut Node {
        self.nodes.get_mut(&self.names[path]).unwrap()
    }

    pub(super) fn find(&self, base: u64, path: &str) -> Option<u64> {
        if base != 0 { Some(base) } else { self.names.get(path).copied() }
    }

    /// `None`: not about files that are open.
    pub(super) fn apply(&mut self, op: &Op, sessions: &[u64]) -> Option<Answer> {
        let fenced = || failure(Code::Fenced, "", "the session has ended");
        Some(match op {
            Op::OpenFile(ask) => {
                if !sessions.contains(&ask.session) {
                    return Some(fenced());
                }
                self.open(ask, sessions)
            }
            Op::CommitFile(ask) => match self.written_by(ask.inode, ask.session, sessions) {
                Ok(_) => self.commit(ask),
                Err(answer) => answer,
            },
            Op::CloseFile(ask) => match self.written_by(ask.inode, ask.session, sessions) {
                Ok(node) => {
                    node.writer_is_gone();
                    Answer::Done(api::Done {})
                }
                Err(answer) => answer,
            },
            Op::Truncate(ask) => match self.written_by(ask.inode, ask.session, sessions) {
                Ok(node) => {
                    let bytes = ask.bytes;
                    node.blocks.retain(|block| block.offset < bytes);
                    if let Some(last) = node.blocks.last_mut()
                        && last.offset + last.bytes > bytes
                    {
                        last.bytes = bytes - last.offset;
                        last.trim_pending = true;
                    }
                    node.bytes = bytes;
                    Answer::Resolved(node.resolved(ask.inode))
                }
                Err(answer) => answer,
            },
            Op::SetAttributes(ask) => {
                let inode = self.find(ask.base, &ask.path)?;
                let node = self.nodes.get_mut(&inode)?;
                node.mode = ask.mode.unwrap_or(node.mode);
                node.modified_ns = ask.modified_ns.unwrap_or(node.modified_ns);
                Answer::Entry(node.entry(inode))
            }
            Op::Stat(ask) => {
                let inode = self.find(ask.base, &ask.path)?;
                let path = self.names.iter().find(|(_, of)| **of == inode).map(|(path, _)| path.clone());
                // Published files are told by their own table, with their names.
                if ask.base == 0 && self.nodes[&inode].turn == 0 {
                    return None;
                }
                Answer::Entry(Entry { path: path.unwrap_or_default(), ..self.nodes[&inode].entry(inode) })
            }
            Op::Resolve(ask) => {
                let inode = self.find(ask.inode, &ask.path)?;
                if ask.inode == 0 && self.nodes[&inode].turn == 0 {
                    return None;
                }
                Answer::Resolved(self.nodes.get(&inode)?.resolved(inode))
            }
            _ => return None,
        })
    }

    #[expect(clippy::result_large_err, reason = "the answer as the fake sends it")]
    fn written_by(&mut self, inode: u64, session: u64, sessions: &[u64]) -> Result<&mut Node, Answer> {
        let node = self.nodes.get_mut(&inode).ok_or_else(|| failure(Code::Stale, "", "gone"))?;
        if !sessions.contains(&session) || node.writer != Some(session) {
            return Err(failure(Code::Fenced, "", "the session does not write the file"));
        }
        Ok(node)
    }

    fn open(&mut self, ask: &api::OpenFile, sessions: &[u64]) -> Answer {
        let found = self.find(ask.base, &ask.path);
        let inode = match found {
            None if !ask.create => return failure(Code::NotFound, &ask.path, "no such file"),
            Some(_) if ask.exclusive => return failure(Code::AlreadyExists, &ask.path, "it exists"),
            None => self.add(&ask.path, Node { mode: ask.mode, ..Node::default() }),
            Some(inode) => inode,
        };
        let Some(node) = self.nodes.get_mut(&inode) else { return failure(Code::Stale, "", "gone") };
        match node.writer {
            Some(writer) if writer == ask.session => {}
            Some(writer) if sessions.contains(&writer) => {
                return failure(Code::Busy, &ask.path, "it has another writer");
            }
            _ => {
                node.turn += 1;
                node.writer = Some(ask.session);
                for block in &mut node.blocks {
                    block.sparse = true;
                }
            }
        }
        let (file, generation) = (Some(node.resolved(inode)), node.turn);
        Answer::FileOpened(api::FileOpened { file, generation, created: found.is_none() })
    }

    fn commit(&mut self, ask: &api::CommitFile) -> Answer {
        self.commits += 1;
        let node = self.nodes.get_mut(&ask.inode).unwrap();
        assert!(ask.bytes >= node.bytes, "only a truncate makes a file shorter");
        for block in &ask.blocks {
            assert!(
                block.sparse && block.generation == node.turn && block.bytes > 0 && block.root.is_empty()
            );
            assert!(block.offset + block.bytes <= ask.bytes);
            match node.blocks.iter_mut().find(|old| old.offset == block.offset) {
                Some(old) => {
                    assert_eq!((old.block, old.group), (block.block, block.group));
                    assert!(
                        old.bytes == block.bytes || !old.trim_pending || ask.trimmed.contains(&old.block),
                        "a block is cut before it grows"
                    );
                    let trim_pending = old.trim_pending;
                    *old = Block { trim_pending, ..block.clone() };
                }
                None => node.blocks.push(block.clone()),
            }
        }
        node.blocks.sort_by_key(|block| block.offset);
        for block in &mut node.blocks {
            block.trim_pending &= !ask.trimmed.contains(&block.block);
        }
        node.bytes = ask.bytes;
        node.modified_ns = ask.modified_ns;
        if ask.close {
            // Everything that was written is committed: nothing lies behind the length.
            node.writer = None;
        }
        Answer::Entry(node.entry(ask.inode))
    }
}
