//! A program that puts files: it opens a session, reserves blocks, writes through the edge, publishes in batches, and
//! closes. Sometimes it is rude: it stops renewing its session and goes on, or walks away.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use nova_device::sync::join_all;
use nova_device::{Clock, Shard};
use nova_units::{BlockId, Generation, GroupId, TaskClass};
use novafs_edge::{EdgeError, WriteRequest, WriterOpened};
use novafs_namespace::{
    Block, Code, EndSession, NewFile, Op, OpenSession, Outcome, Publish, Reply, SessionOpened,
};

use crate::ask::Ask;
use crate::files::{FileHost, Running};
use crate::metadata::Refusal;

const GENERATION: Generation = Generation(1);
/// Units of one write.
const STEP_UNITS: usize = 4;
/// How often a write that nobody took is sent again before its file is given up.
const WRITE_ATTEMPTS: usize = 2;
/// Between two attempts at something that must be done.
const AGAIN_MS: u64 = 300;
/// A program waits for its changes; when it is killed it stops.
const PATIENCE: Duration = Duration::from_mins(10);
/// Block ids reserved at once.
const RESERVE_MAX: u64 = 12;
/// Files of one batch.
const BATCH_MAX: u64 = 5;

/// Why a file was not put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GivenUp {
    /// The session has ended.
    Fenced,
    /// The disks are full.
    Full,
    /// Its group does not answer.
    Unavailable,
}

/// A file that is to be put.
#[derive(Clone, Debug)]
struct Plan {
    path: String,
    content: Rc<Vec<u8>>,
    sha256: [u8; 32],
    /// Ranges of the content that have bytes; between them it is zeros.
    parts: Vec<std::ops::Range<usize>>,
    unit_log2: u8,
}

/// A writer session of this program.
#[derive(Debug)]
struct Session {
    id: u64,
    lease: Duration,
    writer: WriterOpened,
    reserve: RefCell<Vec<(u64, u32)>>,
    /// Not renewed any more.
    neglected: Cell<bool>,
}

impl FileHost {
    /// Puts files until the run ends, and then some more that must get through.
    pub(crate) async fn run_put(self: Rc<Self>, _running: Running) {
        loop {
            let last = self.files.stopping.get();
            self.put_some(last).await;
            if last {
                return;
            }
            self.pause_ms(400).await;
        }
    }

    /// One session with some batches. What is `due` is tried until it is done or there is no room.
    async fn put_some(self: &Rc<Self>, due: bool) {
        let batches = if due { 1 } else { 1 + self.below(3) };
        let Some(mut session) = self.open_session().await else { return };
        for _ in 0..batches {
            let wanted = 1 + self.below(BATCH_MAX);
            let mut plans: Vec<Plan> =
                (0..wanted).take_while(|_| due || self.files.take_file()).map(|_| self.plan_file()).collect();
            while !plans.is_empty() {
                let left = self.put_batch(&session, plans, due).await;
                if !due || left.is_empty() {
                    break;
                }
                plans = left;
                self.pause_ms(AGAIN_MS).await;
                session.neglected.set(true);
                self.edge.close_writer(session.writer.writer);
                match self.open_session().await {
                    Some(other) => session = other,
                    None => return,
                }
            }
        }
        let walks_away = self.one_in(5);
        session.neglected.set(true);
        self.edge.close_writer(session.writer.writer);
        if !walks_away {
            let end = Op::EndSession(EndSession { session: session.id });
            // Refused when it ran out before.
            let _ = self.metadata.change(end, PATIENCE).await;
        }
    }

    async fn open_session(self: &Rc<Self>) -> Option<Rc<Session>> {
        let lease_ms = 1_000 + u32::try_from(self.below(2_000)).expect("small");
        let opened = self.metadata.change(Op::OpenSession(OpenSession { lease_ms }), PATIENCE).await;
        let Ok(Some(Reply::SessionOpened(SessionOpened { session, lease_ms, .. }))) =
            opened.map(|answer| answer.result)
        else {
            return None;
        };
        let writer = self.edge.open_writer(0, 0).await.expect("the key ring holds a key");
        let session = Rc::new(Session {
            id: session,
            lease: Duration::from_millis(lease_ms.into()),
            writer,
            reserve: RefCell::default(),
            neglected: Cell::new(false),
        });
        self.files.history.borrow_mut().counts.sessions += 1;
        let (host, renewed) = (Rc::clone(self), Rc::clone(&session));
        self.shard.spawn(TaskClass::Client, async move { host.renew(&renewed).await });
        Some(session)
    }

    async fn renew(&self, session: &Session) {
        let clock = self.shard.clock();
        loop {
            clock.sleep_until(clock.now() + session.lease / 3).await;
            if session.neglected.get() {
                return;
            }
            let renewed = self.metadata.read(Ask::Renew(session.id), session.lease / 3).await;
            if renewed.is_err_and(|refusal| refusal.is(Code::Fenced)) {
                return;
            }
        }
    }

    fn plan_file(&self) -> Plan {
        let most = match self.below(8) {
            0 => 1,
            1..=4 => 8 << 10,
            _ => self.files.bytes_max,
        };
        let bytes = usize::try_from(self.below(most)).expect("files are small here");
        let mut content = vec![0; bytes];
        let mut parts = Vec::new();
        let mut at = 0;
        while at < bytes {
            let rest = u64::try_from(bytes - at).expect("files are small here");
            let last = parts.len() == 2 || self.one_in(2);
            let count = if last { rest } else { 1 + self.below(rest) };
            let part = at..at + usize::try_from(count).expect("files are small here");
            at = part.end;
            // A hole now and then.
            if !self.one_in(8) {
                fastrand::Rng::with_seed(self.shard.random()).fill(&mut content[part.clone()]);
                parts.push(part);
            }
        }
        let (sha256, content) = self.files.note_content(content);
        let unit_log2 = 12 + u8::try_from(self.below(5)).expect("small");
        Plan { path: self.fresh_path(), content, sha256, parts, unit_log2 }
    }

    /// Writes and publishes files; those that were not put and may be tried again.
    async fn put_batch(self: &Rc<Self>, session: &Rc<Session>, plans: Vec<Plan>, due: bool) -> Vec<Plan> {
        let written = join_all(plans.iter().map(|plan| self.write_file(session, plan))).await;
        let (mut files, mut put, mut left) = (Vec::new(), Vec::new(), Vec::new());
        for (plan, written) in plans.into_iter().zip(written) {
            match written {
                Ok(file) => {
                    files.push(file);
                    put.push(plan);
                }
                Err(GivenUp::Full) => self.files.history.borrow_mut().counts.full += 1,
                Err(GivenUp::Fenced | GivenUp::Unavailable) => left.push(plan),
            }
        }
        if !due && self.one_in(8) {
            self.neglect(session).await;
        }
        if files.is_empty() {
            return left;
        }
        let publish = Publish { session: session.id, files, make_parents: true, replace: self.one_in(2) };
        match self.metadata.change(Op::Publish(publish), PATIENCE).await.map(|answer| answer.result) {
            Ok(Some(Reply::Published(published))) => self.see_published(&published.outcomes).await,
            Err(Refusal::Refused(failure)) if failure.code() == Code::Fenced => {
                self.files.history.borrow_mut().counts.files_fenced += put.len() as u64;
                left.append(&mut put);
            }
            Err(Refusal::Unknown) => left.append(&mut put),
            other => self.files.violation(format!("a publish was answered {other:?}")),
        }
        left
    }

    /// The session is not renewed for long enough to run out; its program does not know and goes on.
    async fn neglect(&self, session: &Session) {
        session.neglected.set(true);
        let clock = self.shard.clock();
        clock.sleep_until(clock.now() + session.lease).await;
        self.pause_ms(1_000).await;
    }

    /// What was acknowledged is there, for as long as nobody removed it.
    async fn see_published(&self, outcomes: &[Outcome]) {
        let acknowledged: Vec<u64> =
            outcomes.iter().filter(|it| it.failure.is_none()).map(|it| it.inode).collect();
        self.files.history.borrow_mut().counts.files += acknowledged.len() as u64;
        if let Some(inode) = acknowledged.last().filter(|_| self.one_in(3)) {
            // The oracle judges what is answered.
            let _ = self.metadata.read(Ask::OpenInode(*inode), Duration::from_secs(2)).await;
        }
    }

    async fn write_file(&self, session: &Session, plan: &Plan) -> Result<NewFile, GivenUp> {
        let mut blocks = Vec::new();
        for part in &plan.parts {
            blocks.push(self.write_block(session, plan, part.clone()).await?);
        }
        Ok(NewFile {
            path: plan.path.clone(),
            mode: 0o644,
            modified_ms: 1,
            bytes: plan.content.len() as u64,
            blocks,
            sha256: plan.sha256.to_vec(),
            ..NewFile::default()
        })
    }

    async fn write_block(
        &self,
        session: &Session,
        plan: &Plan,
        part: std::ops::Range<usize>,
    ) -> Result<Block, GivenUp> {
        let (id, group) = self.next_block(session).await?;
        self.files.note_writer(BlockId(id), self.node, session.id);
        let bytes = part.len() as u64;
        let step = STEP_UNITS << plan.unit_log2;
        let write = |index: usize, source: Vec<u8>| WriteRequest {
            writer: session.writer.writer,
            group: GroupId(group),
            block: BlockId(id),
            generation: GENERATION,
            unit_log2: plan.unit_log2,
            offset: (index * step) as u64,
            block_bytes: (index * step) as u64,
            source: Rc::new(source),
        };
        let chunks = plan.content[part.clone()].chunks(step).enumerate();
        if self.one_in(6) {
            self.scribble(chunks.clone().map(|(index, chunk)| write(index, vec![0xaa; chunk.len()]))).await;
        }
        let writes = chunks.map(|(index, chunk)| write(index, chunk.to_vec()));
        let written = join_all(writes.map(|write| self.write_patiently(write))).await;
        written.into_iter().collect::<Result<Vec<()>, GivenUp>>()?;
        let closed = self.edge.close_block(session.writer.writer, BlockId(id), GENERATION, bytes);
        let summary = closed.map_err(|error| {
            self.files.violation(format!("a block that was written whole cannot be closed: {error}"));
            GivenUp::Unavailable
        })?;
        Ok(Block {
            block: id,
            group,
            bytes,
            generation: GENERATION.0,
            unit_log2: plan.unit_log2.into(),
            key_domain: summary.key.0,
            key_version: summary.key.1,
            root: summary.root.to_vec(),
            offset: part.start as u64,
            ..Block::default()
        })
    }

    /// Writes that are overtaken by what is written afterwards, whatever becomes of them.
    async fn scribble(&self, writes: impl Iterator<Item = WriteRequest>) {
        for write in writes {
            match self.edge.write(write).await {
                Ok(()) => {}
                Err(
                    EdgeError::Unavailable { .. } | EdgeError::UnknownGroup { .. } | EdgeError::Full { .. },
                ) => return,
                Err(error) => self.files.violation(format!("a write of a new block was refused: {error}")),
            }
        }
    }

    /// One write, and again when nobody took it: it may have been stored, and is sealed anew.
    async fn write_patiently(&self, write: WriteRequest) -> Result<(), GivenUp> {
        for _ in 0..WRITE_ATTEMPTS {
            match self.edge.write(write.clone()).await {
                Ok(()) => return Ok(()),
                Err(EdgeError::Full { .. }) => return Err(GivenUp::Full),
                Err(EdgeError::Unavailable { .. } | EdgeError::UnknownGroup { .. }) => {}
                Err(error) => {
                    self.files.violation(format!("a write of a new block was refused: {error}"));
                    return Err(GivenUp::Unavailable);
                }
            }
        }
        Err(GivenUp::Unavailable)
    }

    /// A fresh block id and the group it belongs in.
    async fn next_block(&self, session: &Session) -> Result<(u64, u32), GivenUp> {
        loop {
            let next = session.reserve.borrow_mut().pop();
            if let Some(next) = next {
                return Ok(next);
            }
            let count = 1 + u32::try_from(self.below(RESERVE_MAX)).expect("small");
            let reserved = self.metadata.reserve(session.id, count, PATIENCE).await;
            match reserved.map(|answer| answer.result) {
                Ok(Some(Reply::BlocksReserved(found))) => {
                    let groups = found.groups.iter().cycle().copied();
                    let blocks = (found.first_block..found.first_block + u64::from(found.count)).zip(groups);
                    session.reserve.borrow_mut().extend(blocks);
                }
                Err(refusal) if refusal.is(Code::Fenced) => return Err(GivenUp::Fenced),
                Err(Refusal::Unknown) => return Err(GivenUp::Unavailable),
                other => {
                    self.files.violation(format!("a reservation was answered {other:?}"));
                    return Err(GivenUp::Unavailable);
                }
            }
        }
    }
}
