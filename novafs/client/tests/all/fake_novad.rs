//! A data plane that keeps blocks in memory, with the faults a test asks for.
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use nova_ring::abi::{Answer, ClientCommand, ClosedBlock, LOCATE_UNITS_MAX, OpenedWriter, Status};
use nova_ring::handshake::{Credentials, Hello};
use nova_ring::snapshot::{Located, LocatedUnit};
use nova_ring::{Acceptor, Admission, Kind, Link, Terms};
use prost::Message;

/// A block as its group keeps it: units, each as long as it was sealed.
#[derive(Clone, Default)]
pub(super) struct Stored {
    pub(super) units: BTreeMap<u32, Vec<u8>>,
    /// Lower generations are refused.
    pub(super) fence: u32,
    /// Writer of the newest generation: another one would seal with other keys and counters.
    writer: Option<u64>,
}

/// What survives a restart of the process.
#[derive(Default)]
pub(super) struct Disk {
    /// By group and block.
    pub(super) blocks: BTreeMap<(u32, u64), Stored>,
    /// Writes to answer with Unavailable first.
    pub(super) unavailable: u32,
    /// Writes after which the process dies; `None`: never.
    pub(super) dies_after_writes: Option<u32>,
    /// Whether every replica is full.
    pub(super) full: bool,
    pub(super) writes: u32,
    /// A local file that gets one byte more with each write that comes, and how often still.
    pub(super) grows: Option<(PathBuf, u32)>,
    pub(super) fences: u32,
    pub(super) trims: u32,
}

/// All test blocks have units of this size.
const UNIT: usize = 1 << 16;

impl Stored {
    /// As an edge does it: a unit that is covered partly keeps what it held before `block_bytes`.
    fn write(&mut self, offset: usize, block_bytes: usize, plain: &[u8]) {
        for unit in offset / UNIT..=(offset + plain.len() - 1) / UNIT {
            let begin = unit * UNIT;
            let (from, to) = (offset.max(begin), (offset + plain.len()).min(begin + UNIT));
            let index = u32::try_from(unit).unwrap();
            let mut kept = self.units.remove(&index).unwrap_or_default();
            kept.truncate(block_bytes.saturating_sub(begin));
            kept.resize(kept.len().max(to - begin), 0);
            kept[from - begin..to - begin].copy_from_slice(&plain[from - offset..to - offset]);
            self.units.insert(index, kept);
        }
    }

    /// `None`: a unit is missing where none may.
    pub(super) fn read(&self, offset: usize, bytes: usize, sparse: bool) -> Option<Vec<u8>> {
        let mut found = vec![0; bytes];
        for (at, byte) in (offset..).zip(&mut found) {
            let unit = self.units.get(&u32::try_from(at / UNIT).unwrap());
            match unit.and_then(|unit| unit.get(at % UNIT)) {
                Some(kept) => *byte = *kept,
                None if sparse => {}
                None => return None,
            }
        }
        Some(found)
    }

    fn trim(&mut self, from_bytes: usize) {
        self.units.retain(|unit, _| (*unit as usize) * UNIT < from_bytes);
        if let Some(last) = self.units.get_mut(&u32::try_from(from_bytes / UNIT).unwrap()) {
            last.truncate(from_bytes % UNIT);
        }
    }

    fn len(&self) -> usize {
        self.units.last_key_value().map_or(0, |(unit, plain)| (*unit as usize) * UNIT + plain.len())
    }
}

pub(super) struct FakeNovad {
    _door: Acceptor,
    stop: Arc<AtomicBool>,
}

struct Door {
    tickets: Arc<Mutex<Vec<[u8; 16]>>>,
    links: Mutex<mpsc::Sender<Link>>,
}

impl Admission for Door {
    fn admit(&self, hello: &Hello, _: Credentials) -> Result<Terms, String> {
        assert_eq!(hello.kind, Kind::Client);
        let mut tickets = self.tickets.lock().unwrap();
        let found = tickets.iter().position(|ticket| *ticket == hello.ticket).ok_or("no such ticket")?;
        tickets.remove(found);
        Ok(Terms { capacity: 32, area_bytes: hello.area_bytes, boot: 1, generation: 1 })
    }
    fn attached(&self, _: Hello, _: Credentials, link: Link) {
        // The test may be over.
        let _ = self.links.lock().unwrap().send(link);
    }
}

static WRITERS: AtomicU64 = AtomicU64::new(1);

impl FakeNovad {
    pub(super) fn start(socket: &Path, tickets: Arc<Mutex<Vec<[u8; 16]>>>, disk: Arc<Mutex<Disk>>) -> Self {
        let (send, links) = mpsc::channel::<Link>();
        let door =
            Acceptor::listen(socket, 0o600, Arc::new(Door { tickets, links: Mutex::new(send) })).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        std::thread::spawn(move || {
            while let Ok(link) = links.recv() {
                let (disk, stopped) = (Arc::clone(&disk), Arc::clone(&stopped));
                std::thread::spawn(move || {
                    Process { disk, writers: HashSet::new(), open: HashSet::new() }.serve(link, &stopped)
                });
            }
        });
        Self { _door: door, stop }
    }

    pub(super) fn is_dead(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

impl Drop for FakeNovad {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

/// What dies with the process.
struct Process {
    disk: Arc<Mutex<Disk>>,
    writers: HashSet<u64>,
    open: HashSet<u64>,
}

impl Process {
    fn serve(mut self, mut link: Link, stop: &AtomicBool) {
        while !link.socket.is_gone() {
            while let Some(slot) = link.receiver.pop().unwrap() {
                let command = ClientCommand::decode(&slot).unwrap();
                let answer = self.carry_out(command, &link);
                if self.disk.lock().unwrap().dies_after_writes == Some(0) {
                    stop.store(true, Ordering::Release);
                }
                if stop.load(Ordering::Acquire) {
                    link.socket.end();
                    return;
                }
                link.sender.push(answer.encode()).unwrap();
            }
            link.sender.ring();
            if stop.load(Ordering::Acquire) {
                link.socket.end();
                return;
            }
            link.receiver.wait(Duration::from_millis(20)).unwrap();
        }
    }

    fn carry_out(&mut self, command: ClientCommand, link: &Link) -> Answer {
        let mut answer = Answer::new(command.request(), Status::Ok);
        let mut disk = self.disk.lock().unwrap();
        match command {
            ClientCommand::CurrentKey { .. } => {
                answer.detail = OpenedWriter { writer: 0, key_domain: 3, key_version: 2 }.encode();
            }
            ClientCommand::OpenWriter { .. } => {
                let writer = WRITERS.fetch_add(1, Ordering::Relaxed);
                self.writers.insert(writer);
                answer.detail = OpenedWriter { writer, key_domain: 3, key_version: 2 }.encode();
            }
            ClientCommand::Write {
                writer,
                group,
                block,
                generation,
                offset,
                block_bytes,
                arena_offset,
                bytes,
                ..
            } => {
                disk.writes += 1;
                if let Some((path, left)) = disk.grows.as_mut().filter(|(_, left)| *left > 0) {
                    *left -= 1;
                    let mut file = std::fs::File::options().append(true).open(path).unwrap();
                    std::io::Write::write_all(&mut file, b"+").unwrap();
                }
                if disk.full {
                    return Answer::new(command.request(), Status::Full);
                }
                if disk.unavailable > 0 {
                    disk.unavailable -= 1;
                    return Answer::new(command.request(), Status::Unavailable);
                }
                if let Some(left) = &mut disk.dies_after_writes {
                    *left = left.saturating_sub(1);
                }
                if !self.writers.contains(&writer) {
                    return Answer::new(command.request(), Status::Invalid);
                }
                let mut plain = vec![0; bytes as usize];
                link.area.copy_out(arena_offset, &mut plain).unwrap();
                let kept = disk.blocks.entry((group.0, block.0)).or_default();
                if generation.0 < kept.fence {
                    return Answer::new(command.request(), Status::Fenced);
                }
                let turned = generation.0 > kept.fence;
                assert!(!turned || kept.fence == 0, "a block that exists is fenced before it is written");
                assert!(turned || kept.writer.is_none_or(|old| old == writer), "two keys in one generation");
                (kept.fence, kept.writer) = (generation.0, Some(writer));
                kept.write(offset as usize, block_bytes as usize, &plain);
                self.open.insert(block.0);
                answer.bytes = bytes;
            }
            ClientCommand::Fence { group, block, generation, .. } => {
                disk.fences += 1;
                let kept = disk.blocks.entry((group.0, block.0)).or_default();
                if generation.0 < kept.fence {
                    answer.status = Status::Fenced;
                } else if generation.0 > kept.fence {
                    (kept.fence, kept.writer) = (generation.0, None);
                }
            }
            ClientCommand::Trim { writer, group, block, generation, from_bytes, .. } => {
                disk.trims += 1;
                let kept = disk.blocks.get_mut(&(group.0, block.0)).unwrap();
                assert!(self.writers.contains(&writer) && kept.fence == generation.0);
                kept.writer = Some(writer);
                kept.trim(from_bytes as usize);
            }
            ClientCommand::ReleaseBlock { block, .. } => {
                self.open.remove(&block.0);
            }
            ClientCommand::CloseBlock { block, plain_bytes, .. } => {
                let found = disk.blocks.iter().find(|((_, id), _)| *id == block.0);
                match found {
                    Some((_, kept)) if self.open.remove(&block.0) => {
                        assert_eq!(kept.len(), plain_bytes as usize);
                        let units = u32::try_from(kept.len().div_ceil(UNIT)).unwrap();
                        answer.detail = ClosedBlock { root: [9; 32], units }.encode();
                    }
                    _ => answer.status = Status::Invalid,
                }
            }
            ClientCommand::CloseWriter { .. } => {}
            ClientCommand::Read {
                group, block, block_bytes, sparse, offset, bytes, arena_offset, ..
            } => match disk.blocks.get(&(group.0, block.0)) {
                None => answer.status = Status::NotFound,
                Some(kept) => {
                    assert!(sparse || kept.len() == block_bytes as usize);
                    match kept.read(offset as usize, bytes as usize, sparse) {
                        None => answer.status = Status::NotFound,
                        Some(plain) => {
                            link.area.copy_in(arena_offset, &plain).unwrap();
                            answer.bytes = bytes;
                        }
                    }
                }
            },
            ClientCommand::Locate { first_unit, count, arena_offset, .. } => {
                let mut located = Located {
                    silent_nodes: vec![33],
                    silent_reasons: vec!["the host refused the request".into()],
                    ..Located::default()
                };
                if count > LOCATE_UNITS_MAX {
                    return Answer::new(command.request(), Status::Invalid);
                }
                for unit in first_unit..first_unit + count {
                    for node in [11, 22] {
                        let device = (u128::from(node) << 64).to_be_bytes().to_vec();
                        let position = u64::from(unit) << 16;
                        located.replicas.push(LocatedUnit {
                            unit: u32::from(unit),
                            node,
                            device,
                            position,
                            stored_bytes: 4096,
                            plain_bytes: 4096,
                            digest: vec![7; 32],
                            ..LocatedUnit::default()
                        });
                    }
                }
                let message = located.encode_to_vec();
                link.area.copy_in(arena_offset, &message).unwrap();
                answer.bytes = u32::try_from(message.len()).unwrap();
            }
        }
        answer
    }
}
