//! Files that are rewritten through the real edge: taken over by one generation after the other, on either host,
//! written at odd offsets, cut and extended, while others read. The writer before goes on, and must be refused.
//!
//! Every byte is a register. Versions are numbered by the steps of the file's one writer; what a step makes of a byte is
//! its number, or zero for a hole. A read must not return less than what was acknowledged, or read by someone, before it
//! began, nor what was never begun.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use nova_device::{Clock, Shard};
use nova_units::{BlockId, Generation, GroupId, TaskClass};
use novafs_edge::{EdgeError, ReadRequest, TrimRequest, WriteRequest, WriterOpened};

use crate::edge::SimEdge;
use crate::files::RealEdge;

/// Steps of one file: a version's number fits a byte, and zero is a hole.
const STEPS_MAX: u8 = 200;
/// Pause between two steps, in milliseconds, at most.
const PAUSE_MS_MAX: u64 = 120;
/// A writer that was taken over goes on for so long, in milliseconds, at most.
const GHOST_MS_MAX: u64 = 2_000;
/// Of a hundred steps, how many are a takeover, and how many a cut.
const TAKEOVER_PERCENT: u64 = 8;
const CUT_PERCENT: u64 = 15;

/// Number of a step.
type Version = u8;

/// What a byte of the file may be.
#[derive(Clone, Debug, Default)]
struct Register {
    /// Versions that were begun, oldest first, and what they make of the byte.
    begun: Vec<(Version, u8)>,
    /// Acknowledged, or seen by a read that ended.
    known: Version,
}

impl Register {
    fn begin(&mut self, version: Version, value: u8) {
        self.begun.push((version, value));
    }

    /// The oldest version not below `least` that makes it `value`; before all versions it is zero.
    fn version_of(&self, least: Version, value: u8) -> Option<Version> {
        if value == 0 && least == 0 {
            return Some(0);
        }
        self.begun
            .iter()
            .find(|(version, made)| *version >= least && *made == value)
            .map(|(version, _)| *version)
    }
}

/// The writer of the file's newest generation.
#[derive(Clone)]
struct Session {
    edge: Rc<RealEdge>,
    opened: WriterOpened,
    generation: Generation,
}

/// One file of one block.
pub(crate) struct Rewritten {
    /// The edges that write and read it.
    edges: [Rc<RealEdge>; 2],
    host: Rc<SimEdge>,
    group: GroupId,
    block: BlockId,
    unit_log2: u8,
    bytes_max: u64,
    registers: RefCell<Vec<Register>>,
    /// Length in the file's metadata.
    bytes: Cell<u64>,
    /// How far the block may hold data of the session.
    data_end: Cell<u64>,
    /// The metadata were cut, and the block not yet.
    cut_due: Cell<bool>,
    steps: Cell<Version>,
    key: Cell<(u32, u32)>,
}

impl std::fmt::Debug for Rewritten {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rewritten")
            .field("block", &self.block)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl Rewritten {
    pub(crate) fn new(
        edges: [Rc<RealEdge>; 2],
        host: Rc<SimEdge>,
        (group, block, unit_log2): (GroupId, BlockId, u8),
        bytes_max: u64,
    ) -> Rc<Self> {
        let registers = vec![Register::default(); usize::try_from(bytes_max).expect("a small file")];
        Rc::new(Self {
            edges,
            host,
            group,
            block,
            unit_log2,
            bytes_max,
            registers: RefCell::new(registers),
            bytes: Cell::new(0),
            data_end: Cell::new(0),
            cut_due: Cell::new(false),
            steps: Cell::new(0),
            key: Cell::new((0, 0)),
        })
    }

    fn below(&self, bound: u64) -> u64 {
        self.host.shard.random() % bound.max(1)
    }

    async fn pause(&self, millis_max: u64) {
        let clock = self.host.shard.clock();
        clock.sleep_until(clock.now() + Duration::from_millis(self.below(millis_max))).await;
    }

    fn violation(&self, what: String) {
        self.host.history.borrow_mut().violation(format!("{}: {what}", self.block));
    }

    /// Takes the number of the next step; `None` when the file has had all of them.
    fn next_step(&self) -> Option<Version> {
        let step = self.steps.get() + 1;
        if step >= STEPS_MAX {
            return None;
        }
        self.steps.set(step);
        Some(step)
    }

    /// Rewrites the file until the run ends.
    pub(crate) async fn run(self: Rc<Self>) {
        let mut session = None;
        while !self.host.stopping.get() {
            session = match session.take() {
                Some(session) if self.below(100) >= TAKEOVER_PERCENT => Some(session),
                before => self.take_over(before).await,
            };
            if let Some(session) = &session {
                self.step(session).await;
            }
            self.pause(PAUSE_MS_MAX).await;
        }
    }

    /// Opens the file anew on either host: fences the block, then cuts what lies behind the length.
    async fn take_over(self: &Rc<Self>, before: Option<Session>) -> Option<Session> {
        let edge = Rc::clone(&self.edges[usize::try_from(self.below(2)).expect("two edges")]);
        let generation = before.as_ref().map_or(Generation(1), |before| before.generation.next());
        let Ok(opened) = edge.open_writer(0, 0).await else { return before };
        self.key.set(opened.key);
        if let Some(before) = &before {
            let mut fenced = Err(EdgeError::UnknownWriter);
            while !self.host.stopping.get() && fenced.is_err() {
                fenced = edge.fence(self.group, self.block, generation).await;
                self.pause(PAUSE_MS_MAX).await;
            }
            if fenced.is_err() {
                return Some(before.clone());
            }
            self.host.history.borrow_mut().ack_fence(self.block, generation);
            self.let_go_on(before.clone());
            self.cut_due.set(true);
        }
        self.data_end.set(self.bytes.get());
        Some(Session { edge, opened, generation })
    }

    /// A writer that does not know that it is none any more.
    fn let_go_on(self: &Rc<Self>, ghost: Session) {
        let file = Rc::clone(self);
        self.host.shard.spawn(TaskClass::Client, async move {
            file.pause(GHOST_MS_MAX).await;
            let bytes = 1 + file.below(file.bytes_max);
            // A value that no step makes: whoever reads it reads what a fenced writer wrote.
            let written = file.write_with(&ghost, 0, u8::MAX, bytes).await;
            let cut = file.trim_with(&ghost, 0).await;
            for (what, outcome) in [("write", written), ("cut", cut)] {
                match outcome {
                    Ok(()) => file.violation(format!("the {what} of a fenced writer succeeded")),
                    Err(EdgeError::Fenced { .. }) => file.host.history.borrow_mut().counts.fenced += 1,
                    Err(_) => {}
                }
            }
            ghost.edge.close_writer(ghost.opened.writer);
        });
    }

    async fn step(&self, session: &Session) {
        let extends = self.below(2) == 0;
        if self.cut_due.get() || self.below(100) < CUT_PERCENT {
            self.cut(session).await;
        } else if extends || self.bytes.get() > 0 {
            self.write(session, extends).await;
        }
    }

    /// Cuts the file: its metadata first, then the block.
    async fn cut(&self, session: &Session) {
        let Some(step) = self.next_step() else { return };
        let to = if self.cut_due.get() { self.bytes.get() } else { self.below(self.bytes.get() + 1) };
        self.bytes.set(to);
        self.cut_due.set(true);
        self.begin(step, to, self.bytes_max, 0);
        if self.trim_with(session, to).await.is_ok() {
            self.acknowledge(step, to, self.bytes_max);
            self.cut_due.set(false);
            self.data_end.set(to);
        }
    }

    async fn write(&self, session: &Session, extends: bool) {
        let Some(step) = self.next_step() else { return };
        let room = if extends { self.bytes_max } else { self.bytes.get() };
        let offset = self.below(room);
        let bytes = 1 + self.below((room - offset).min(3 << self.unit_log2));
        let (hole, end) = (self.data_end.get(), offset + bytes);
        if hole < offset {
            self.begin(step, hole, offset, 0);
        }
        self.begin(step, offset, end, step);
        let written = self.write_with(session, offset, step, bytes).await;
        // Whether or not it is known to be there, it may be.
        self.data_end.set(hole.max(end));
        match written {
            Ok(()) => {
                self.acknowledge(step, hole.min(offset), end);
                self.bytes.set(self.bytes.get().max(end));
                self.host.history.borrow_mut().counts.rewrites += 1;
            }
            Err(EdgeError::Fenced { .. }) => self.violation("the newest writer was fenced".to_owned()),
            Err(_) => {}
        }
    }

    async fn write_with(
        &self,
        session: &Session,
        offset: u64,
        value: u8,
        bytes: u64,
    ) -> Result<(), EdgeError> {
        let request = WriteRequest {
            writer: session.opened.writer,
            group: self.group,
            block: self.block,
            generation: session.generation,
            unit_log2: self.unit_log2,
            offset,
            block_bytes: self.data_end.get(),
            source: Rc::new(vec![value; usize::try_from(bytes).expect("a small file")]),
        };
        session.edge.write(request).await
    }

    async fn trim_with(&self, session: &Session, from_bytes: u64) -> Result<(), EdgeError> {
        let request = TrimRequest {
            writer: session.opened.writer,
            group: self.group,
            block: self.block,
            generation: session.generation,
            unit_log2: self.unit_log2,
            from_bytes,
        };
        session.edge.trim(request).await
    }

    fn begin(&self, step: Version, from: u64, to: u64, value: u8) {
        for register in &mut self.registers.borrow_mut()[range(from, to)] {
            register.begin(step, value);
        }
    }

    fn acknowledge(&self, step: Version, from: u64, to: u64) {
        for register in &mut self.registers.borrow_mut()[range(from, to)] {
            // What the step made of it; a hole that was there before is not of this step.
            if register.begun.last().is_some_and(|(version, _)| *version == step) {
                register.known = register.known.max(step);
            }
        }
    }

    /// Reads some of the file now and then, until the run ends.
    pub(crate) async fn run_reader(self: Rc<Self>) {
        while !self.host.stopping.get() {
            let bytes = self.bytes.get();
            if bytes > 0 {
                let offset = self.below(bytes);
                // During faults it may not be readable; what is read is judged.
                let _ = self.read(offset, 1 + self.below(bytes - offset)).await;
            }
            self.pause(PAUSE_MS_MAX).await;
        }
    }

    async fn read(&self, offset: u64, bytes: u64) -> Result<(), EdgeError> {
        let place = range(offset, offset + bytes);
        let least: Vec<_> =
            self.registers.borrow()[place.clone()].iter().map(|register| register.known).collect();
        let request = ReadRequest {
            group: self.group,
            block: self.block,
            key: self.key.get(),
            unit_log2: self.unit_log2,
            block_bytes: self.bytes.get(),
            offset,
            bytes,
            sparse: true,
        };
        let mut content = vec![0; place.len()];
        let edge = &self.edges[usize::try_from(self.below(2)).expect("two edges")];
        let give = |at: u64, plain: &[u8]| {
            content[range(at, at + plain.len() as u64)].copy_from_slice(plain);
        };
        edge.read(&request, give).await?;
        let mut registers = self.registers.borrow_mut();
        for (at, (register, (least, value))) in
            registers[place].iter_mut().zip(least.into_iter().zip(content)).enumerate()
        {
            match register.version_of(least, value) {
                Some(version) => register.known = register.known.max(version),
                None => {
                    let at = offset + at as u64;
                    self.violation(format!(
                        "byte {at} was read as {value}, at least version {least} was due"
                    ));
                    break;
                }
            }
        }
        Ok(())
    }

    /// Reads the whole file at rest; what cannot be read.
    pub(crate) async fn read_at_rest(self: Rc<Self>) -> Option<String> {
        let bytes = self.bytes.get();
        if bytes == 0 {
            return None;
        }
        let read = self.read(0, bytes).await;
        read.err().map(|error| format!("{} cannot be read at rest: {error}", self.block))
    }
}

fn range(from: u64, to: u64) -> std::ops::Range<usize> {
    let small = |at: u64| usize::try_from(at).expect("a small file");
    small(from)..small(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_one_of_the_versions_that_may_be_there_and_nothing_else() {
        let mut register = Register::default();
        assert_eq!(register.version_of(0, 0), Some(0), "a hole before all versions");
        register.begin(3, 3);
        register.begin(5, 0);
        assert_eq!(register.version_of(0, 3), Some(3), "under way");
        assert_eq!(register.version_of(0, 4), None, "from nowhere");
        assert_eq!(register.version_of(5, 3), None, "stale");
        assert_eq!(register.version_of(3, 0), Some(5), "cut off");
        assert_eq!(register.version_of(6, 0), None);
    }
}
