//! An agent with the metadata of one region in memory.
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use nova_api::files::failure::Code;
use nova_api::files::request::Op;
use nova_api::files::response::Result as Answer;
use nova_api::files::{self as api, Entry, NewFile, Request, Response, entry::Kind as EntryKind};
use nova_ring::abi::{MetadataReply, MetadataRequest, Status};
use nova_ring::handshake::{Credentials, Hello};
use nova_ring::snapshot::DataRoute;
use nova_ring::{Acceptor, Admission, Kind, Link, Terms};
use prost::Message;

use super::fake_inodes::Inodes;

/// The metadata, and what it is told to do wrong.
#[derive(Default)]
pub(super) struct State {
    pub(super) files: BTreeMap<String, NewFile>,
    pub(super) folders: std::collections::BTreeSet<String>,
    answered: BTreeMap<(u64, u64), Answer>,
    pub(super) sessions: Vec<u64>,
    next_session: u64,
    next_block: u64,
    /// Publishes carried out and files in the largest.
    pub(super) publishes: u64,
    pub(super) largest_publish: usize,
    /// Requests to answer with Unavailable before the next good one.
    pub(super) unavailable: u32,
    /// Publishes to carry out and not answer: the link ends instead.
    pub(super) lost_replies: u32,
    /// Sessions to end when their next publish comes.
    pub(super) fence_next_publish: bool,
    /// The next writer that leaves is heard only after the next open.
    pub(super) delay_leaving: bool,
    /// Writers that left and were not heard yet.
    pub(super) leaving: usize,
    /// Questions for the blocks of one file.
    pub(super) resolves: u32,
    /// Unit size that namespaces ask for; 0: they say nothing.
    pub(super) unit_log2: u32,
    /// Extended attributes by path.
    pub(super) xattrs: BTreeMap<String, Vec<api::Xattr>>,
    /// Files that were made by being opened.
    pub(super) inodes: Inodes,
}

struct Door {
    links: Mutex<mpsc::Sender<Link>>,
}

impl Admission for Door {
    fn admit(&self, hello: &Hello, _: Credentials) -> Result<Terms, String> {
        assert_eq!(hello.kind, Kind::Metadata);
        Ok(Terms { capacity: 64, area_bytes: hello.area_bytes, boot: 1, generation: 1 })
    }
    fn attached(&self, _: Hello, _: Credentials, link: Link) {
        // The test may be over.
        let _ = self.links.lock().unwrap().send(link);
    }
}

pub(super) struct FakeAgent {
    pub(super) state: Arc<Mutex<State>>,
    _door: Acceptor,
    stop: Arc<AtomicBool>,
}

impl FakeAgent {
    /// Listens at `socket`; programs are sent on to the data plane at `novad` with tickets from `tickets`.
    pub(super) fn start(socket: &Path, novad: &Path, tickets: Arc<Mutex<Vec<[u8; 16]>>>) -> Self {
        let state = Arc::new(Mutex::new(State { next_session: 1, next_block: 1000, ..State::default() }));
        let (send, links) = mpsc::channel::<Link>();
        let door = Acceptor::listen(socket, 0o600, Arc::new(Door { links: Mutex::new(send) })).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, novad, stopped) = (Arc::clone(&state), novad.to_owned(), Arc::clone(&stop));
        std::thread::spawn(move || {
            let numbers = AtomicU64::new(1);
            let (numbers, shared, tickets, novad) = (Arc::new(numbers), shared, tickets, novad);
            while let Ok(link) = links.recv() {
                let host = Host {
                    state: Arc::clone(&shared),
                    tickets: Arc::clone(&tickets),
                    novad: novad.clone(),
                    numbers: Arc::clone(&numbers),
                };
                let stopped = Arc::clone(&stopped);
                std::thread::spawn(move || host.serve(link, &stopped));
            }
        });
        Self { state, _door: door, stop }
    }
}

impl Drop for FakeAgent {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

struct Host {
    state: Arc<Mutex<State>>,
    tickets: Arc<Mutex<Vec<[u8; 16]>>>,
    novad: std::path::PathBuf,
    numbers: Arc<AtomicU64>,
}

impl Host {
    fn serve(&self, mut link: Link, stop: &AtomicBool) {
        let mut held = Vec::new();
        while !link.socket.is_gone() && !stop.load(Ordering::Acquire) {
            while let Some(asked) = self.next(&mut link, &mut held) {
                let reply = match asked {
                    MetadataRequest::OpenData { .. } => Some(self.route().encode_to_vec()),
                    MetadataRequest::Request { offset, bytes, .. } => {
                        let request = request_at(&link, offset, bytes);
                        let opens = matches!(request.op, Some(Op::OpenFile(_)));
                        let mut state = self.state.lock().unwrap();
                        state.delay_leaving &= !opens;
                        state.execute(request).map(|result| Response { result: Some(result) }.encode_to_vec())
                    }
                };
                let Some(reply) = reply else {
                    link.socket.end();
                    return;
                };
                let (MetadataRequest::OpenData { request, reply_offset, reply_bytes_max }
                | MetadataRequest::Request { request, reply_offset, reply_bytes_max, .. }) = asked;
                let bytes = u32::try_from(reply.len()).unwrap();
                let status = if bytes > reply_bytes_max { Status::Full } else { Status::Ok };
                if status == Status::Ok {
                    link.area.copy_in(reply_offset, &reply).unwrap();
                }
                link.sender.push(MetadataReply::Reply { request, status, bytes }.encode()).unwrap();
            }
            link.sender.ring();
            link.receiver.wait(Duration::from_millis(20)).unwrap();
        }
    }

    /// What is to be answered next. A writer that leaves is put into `held` while the state wants that.
    fn next(&self, link: &mut Link, held: &mut Vec<MetadataRequest>) -> Option<MetadataRequest> {
        loop {
            let mut state = self.state.lock().unwrap();
            if !state.delay_leaving
                && let Some(asked) = held.pop()
            {
                state.leaving -= 1;
                return Some(asked);
            }
            let asked = MetadataRequest::decode(&link.receiver.pop().unwrap()?).unwrap();
            let leaves = match asked {
                MetadataRequest::Request { offset, bytes, .. } => match request_at(link, offset, bytes).op {
                    Some(Op::CommitFile(commit)) => commit.close,
                    op => matches!(op, Some(Op::CloseFile(_))),
                },
                MetadataRequest::OpenData { .. } => false,
            };
            if !(leaves && state.delay_leaving) {
                return Some(asked);
            }
            state.leaving += 1;
            held.push(asked);
        }
    }

    fn route(&self) -> DataRoute {
        let mut ticket = [7; 16];
        ticket[..8].copy_from_slice(&self.numbers.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        self.tickets.lock().unwrap().push(ticket);
        DataRoute { socket: self.novad.display().to_string(), ticket: ticket.to_vec(), valid_ms: 1000 }
    }
}

fn request_at(link: &Link, offset: u64, bytes: u32) -> Request {
    let mut message = vec![0; bytes as usize];
    link.area.copy_out(offset, &mut message).unwrap();
    Request::decode(&*message).unwrap()
}

pub(super) fn failure(code: Code, path: &str, message: &str) -> Answer {
    Answer::Failure(api::Failure { code: code.into(), path: path.into(), message: message.into() })
}

fn name_of(path: &str) -> String {
    path.rsplit('/').next().unwrap_or_default().to_owned()
}

impl State {
    /// Ends every writer session, as if its lease had run out.
    pub(super) fn end_sessions(&mut self) {
        self.sessions.clear();
        self.inodes.end_writers();
    }

    /// `None`: carried out, and the link ends before the reply.
    fn execute(&mut self, request: Request) -> Option<Answer> {
        let Request { client, sequence, op } = request;
        if self.unavailable > 0 {
            self.unavailable -= 1;
            return Some(failure(Code::Unavailable, "", "no leader"));
        }
        if client != 0
            && let Some(known) = self.answered.get(&(client, sequence))
        {
            return Some(known.clone());
        }
        let is_publish = matches!(op, Some(Op::Publish(_)));
        let answer = self.apply(op.unwrap());
        if client != 0 {
            self.answered.insert((client, sequence), answer.clone());
        }
        if is_publish && self.lost_replies > 0 {
            self.lost_replies -= 1;
            return None;
        }
        Some(answer)
    }

    fn apply(&mut self, op: Op) -> Answer {
        if let Some(answer) = self.inodes.apply(&op, &self.sessions) {
            return answer;
        }
        match op {
            Op::OpenSession(_) => {
                let session = self.next_session;
                self.next_session += 1;
                self.sessions.push(session);
                Answer::SessionOpened(api::SessionOpened { session, lease_ms: 300, era: 1 })
            }
            Op::RenewSession(ask) if self.sessions.contains(&ask.session) => Answer::Done(api::Done {}),
            Op::RenewSession(_) => failure(Code::Fenced, "", "ended"),
            Op::CloseSession(ask) => {
                self.sessions.retain(|session| *session != ask.session);
                Answer::Done(api::Done {})
            }
            Op::ReserveBlocks(ask) => {
                let first_block = self.next_block;
                self.next_block += u64::from(ask.count);
                Answer::BlocksReserved(api::BlocksReserved {
                    first_block,
                    count: ask.count,
                    groups: vec![4, 5, 6],
                    unit_log2: self.unit_log2,
                    ..api::BlocksReserved::default()
                })
            }
            Op::Publish(ask) => self.publish(ask),
            Op::SetXattr(ask) => {
                assert!(self.files.contains_key(&ask.path), "what is not published gets no attributes");
                let xattr = api::Xattr { name: ask.name, value: ask.value };
                self.xattrs.entry(ask.path).or_default().push(xattr);
                Answer::Done(api::Done {})
            }
            Op::Xattrs(ask) => {
                let path = if ask.base == 0 { ask.path } else { self.inodes.path_of(ask.base).unwrap() };
                let xattrs = self.xattrs.get(&path).cloned().unwrap_or_default();
                Answer::XattrList(api::XattrList { xattrs })
            }
            Op::MakeDirectory(ask) => {
                self.folders.insert(ask.path);
                Answer::Done(api::Done {})
            }
            Op::Stat(ask) => self.entry(&ask.path).map_or_else(
                || failure(Code::NotFound, &ask.path, "no such file or directory"),
                Answer::Entry,
            ),
            Op::Resolve(ask) => match self.files.get(&ask.path).inspect(|_| self.resolves += 1) {
                None => failure(Code::NotFound, &ask.path, "no such file or directory"),
                Some(file) => Answer::Resolved(api::Resolved {
                    entry: self.entry(&ask.path),
                    blocks: file.blocks.clone(),
                }),
            },
            Op::List(ask) => {
                let prefix = format!("{}/", ask.path.trim_end_matches('/'));
                let mut names: Vec<Entry> = (self.files.keys().chain(&self.folders))
                    .filter(|path| path.strip_prefix(&prefix).is_some_and(|below| !below.contains('/')))
                    .filter(|path| name_of(path) > ask.after)
                    .map(|path| self.entry(path).unwrap())
                    .collect();
                names.sort_by(|a, b| a.name.cmp(&b.name));
                // Two a page, whatever is asked for: pages are what this is about.
                let more = names.len() > 2;
                names.truncate(2);
                let map = |entry: &Entry| {
                    let file = self.files.get(&format!("{prefix}{}", entry.name));
                    let blocks = file.map(|file| file.blocks.clone()).unwrap_or_default();
                    // The largest are left out, as by controllers.
                    api::BlockMap { left_out: entry.bytes > 1 << 20, blocks }
                };
                let maps = if ask.with_blocks { names.iter().map(map).collect() } else { Vec::new() };
                Answer::Listing(api::Listing { entries: names, more, maps })
            }
            other => panic!("the client asked for {other:?}"),
        }
    }

    fn publish(&mut self, ask: api::Publish) -> Answer {
        self.publishes += 1;
        self.largest_publish = self.largest_publish.max(ask.files.len());
        if self.fence_next_publish {
            self.fence_next_publish = false;
            self.sessions.retain(|session| *session != ask.session);
        }
        if !self.sessions.contains(&ask.session) {
            return failure(Code::Fenced, "", "the session has ended");
        }
        let mut outcomes = Vec::new();
        for file in ask.files {
            let exists = self.files.contains_key(&file.path) && !ask.replace;
            if exists {
                let code = Code::AlreadyExists.into();
                let failure = api::Failure { code, path: file.path, message: "it exists".into() };
                outcomes.push(api::PublishOutcome { inode: 0, failure: Some(failure) });
                continue;
            }
            let mut folder = file.path.as_str();
            while let Some((parent, _)) = folder.rsplit_once('/').filter(|(parent, _)| !parent.is_empty()) {
                self.folders.insert(parent.to_owned());
                folder = parent;
            }
            let inode = self.inodes.publish(&file);
            self.files.insert(file.path.clone(), file);
            outcomes.push(api::PublishOutcome { inode, failure: None });
        }
        Answer::Published(api::Published { outcomes })
    }

    fn entry(&self, path: &str) -> Option<Entry> {
        if let Some(file) = self.files.get(path) {
            return Some(Entry {
                name: name_of(path),
                kind: EntryKind::File.into(),
                bytes: file.bytes,
                mode: file.mode,
                modified_ms: file.modified_ms,
                inode: self.inodes.find(0, path).unwrap_or_default(),
                uid: file.uid,
                gid: file.gid,
                xattrs: self.xattrs.get(path).map_or(0, |xattrs| u32::try_from(xattrs.len()).unwrap()),
                ..Entry::default()
            });
        }
        self.folders.contains(path).then(|| Entry {
            name: name_of(path),
            kind: EntryKind::Directory.into(),
            ..Entry::default()
        })
    }
}
