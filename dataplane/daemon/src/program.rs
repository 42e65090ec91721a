//! One attached program: its commands become reads and writes of the edge, their outcomes its answers.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use nova_device::sync::Notify;
use nova_device::{Peers, Shard};
use nova_ring::abi::{Answer, ClientCommand, ClosedBlock, OpenedWriter, Status};
use nova_ring::snapshot::{Located, LocatedUnit};
use nova_ring::{ArenaView, Link, PeerBroken, Receiver, Sender};
use nova_units::{TaskClass, UnitIndex};
use novafs_edge::{Edge, EdgeError, Plaintext, ReadRequest, TrimRequest, WriteRequest, WriterId};

use crate::doorbell::{Bell, Doorbells};

/// Commands of one program that are carried out, or whose answer it has no room for; further ones stay in its ring.
const IN_FLIGHT_MAX: usize = 128;

/// Why a program was detached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Detached {
    #[error("it ended")]
    Gone,
    #[error(transparent)]
    Broken(#[from] PeerBroken),
    #[error("it sent a slot that makes no sense: {0}")]
    BadSlot(#[from] nova_ring::abi::BadSlot),
}

/// Most writers of a program at once. It needs one for each version of a key that it writes under.
const PROGRAM_WRITERS_MAX: usize = 1024;

/// What the tasks of one program share.
struct Program<S: Shard, P: Peers> {
    edge: Rc<Edge<S, P>>,
    area: ArenaView,
    sender: RefCell<Sender>,
    /// Answers that the ring had no room for.
    unsent: RefCell<VecDeque<Answer>>,
    in_flight: Cell<usize>,
    changed: Notify,
    writers: RefCell<Vec<WriterId>>,
}

/// Serves a program until it ends or breaks a rule. Its operations in flight end on private buffers; its writers are
/// closed, so that their keys are gone.
pub(crate) async fn serve<S: Shard + Doorbells, P: Peers>(
    shard: S,
    edge: Rc<Edge<S, P>>,
    link: Link,
) -> Detached {
    let Link { sender, mut receiver, area, socket, .. } = link;
    let program = Rc::new(Program {
        edge,
        area,
        sender: RefCell::new(sender),
        unsent: RefCell::default(),
        in_flight: Cell::new(0),
        changed: Notify::new(),
        writers: RefCell::default(),
    });
    let mut bell = Bell::new(&shard);
    let why = loop {
        match take_commands(&shard, &program, &mut receiver) {
            Err(why) => break why,
            Ok(true) => {}
            Ok(false) => {
                if bell.is_gone(&socket) {
                    break Detached::Gone;
                }
                // At the limit the ring may well hold slots: only the end of a command makes room for one more, or a
                // program that takes its answers, and that rings no bell.
                if program.is_at_limit() {
                    bell.wait_for_change(&program.changed).await;
                } else if let Err(why) = bell.wait_for_slots(&mut receiver, &program.changed).await {
                    break why.into();
                }
            }
        }
        if let Err(why) = program.send_answers() {
            break why.into();
        }
    };
    socket.end();
    for writer in program.writers.take() {
        program.edge.close_writer(writer);
    }
    why
}

/// Starts what is in the ring, within the limit; answers whether there was anything.
fn take_commands<S: Shard, P: Peers>(
    shard: &S,
    program: &Rc<Program<S, P>>,
    receiver: &mut Receiver,
) -> Result<bool, Detached> {
    let mut any = false;
    while !program.is_at_limit() {
        let Some(slot) = receiver.pop()? else { break };
        let command = ClientCommand::decode(&slot)?;
        any = true;
        let carrying = Rc::clone(program);
        let mut work = Box::pin(async move { carrying.carry_out(command).await });
        // Polled here once, so that the edge takes the writes of a unit in the order of their commands; the rest of it
        // runs as a task.
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(answer) = work.as_mut().poll(&mut context) {
            program.unsent.borrow_mut().push_back(answer);
            continue;
        }
        program.in_flight.set(program.in_flight.get() + 1);
        let program = Rc::clone(program);
        shard.spawn(TaskClass::Client, async move {
            let answer = work.await;
            program.unsent.borrow_mut().push_back(answer);
            program.in_flight.set(program.in_flight.get() - 1);
            program.changed.notify_all();
        });
    }
    Ok(any)
}

impl<S: Shard, P: Peers> Program<S, P> {
    /// A program that never takes its answers gets no more than this of our memory.
    fn is_at_limit(&self) -> bool {
        self.in_flight.get() + self.unsent.borrow().len() >= IN_FLIGHT_MAX
    }

    /// Puts answers into the ring while there is room, and rings once.
    fn send_answers(&self) -> Result<(), PeerBroken> {
        let mut unsent = self.unsent.borrow_mut();
        let mut sender = self.sender.borrow_mut();
        let mut sent = false;
        while let Some(answer) = unsent.front() {
            match sender.push(answer.encode()) {
                Ok(()) => {
                    unsent.pop_front();
                    sent = true;
                }
                Err(nova_ring::PushError::Full(_)) => break,
                Err(nova_ring::PushError::Broken(broken)) => return Err(broken),
            }
        }
        if sent {
            sender.ring();
        }
        Ok(())
    }

    async fn carry_out(&self, command: ClientCommand) -> Answer {
        let request = command.request();
        match self.try_carry_out(command).await {
            Ok(answer) => answer,
            Err(error) => Answer::new(request, status_of(&error)),
        }
    }

    async fn try_carry_out(&self, command: ClientCommand) -> Result<Answer, EdgeError> {
        let mut answer = Answer::new(command.request(), Status::Ok);
        match command {
            ClientCommand::CurrentKey { key_domain, .. } => {
                let (key_domain, key_version) = self.edge.current_key(key_domain).await?;
                answer.detail = OpenedWriter { writer: 0, key_domain, key_version }.encode();
            }
            ClientCommand::OpenWriter { key_domain, key_version, .. } => {
                let opened = self.edge.open_writer(key_domain, key_version).await?;
                let open = self.writers.borrow().len();
                if open >= PROGRAM_WRITERS_MAX {
                    self.edge.close_writer(opened.writer);
                    return Err(EdgeError::TooManyWriters { open });
                }
                self.writers.borrow_mut().push(opened.writer);
                let (key_domain, key_version) = opened.key;
                answer.detail = OpenedWriter { writer: opened.writer.0, key_domain, key_version }.encode();
            }
            ClientCommand::Write {
                writer,
                group,
                block,
                generation,
                unit_log2,
                offset,
                bytes,
                block_bytes,
                arena_offset,
                ..
            } => {
                let write = WriteRequest {
                    writer: self.known(writer)?,
                    group,
                    block,
                    generation,
                    unit_log2,
                    offset: u64::from(offset),
                    block_bytes: u64::from(block_bytes),
                    source: self.plaintext(arena_offset, bytes)?,
                };
                self.edge.write(write).await?;
                answer.bytes = bytes;
            }
            ClientCommand::CloseBlock { writer, block, generation, plain_bytes, .. } => {
                let writer = self.known(writer)?;
                let closed = self.edge.close_block(writer, block, generation, u64::from(plain_bytes))?;
                let units = u32::try_from(closed.units).expect("a block has at most 32,768 units");
                answer.detail = ClosedBlock { root: closed.root, units }.encode();
            }
            ClientCommand::ReleaseBlock { writer, block, generation, .. } => {
                self.edge.release_block(self.known(writer)?, block, generation).await?;
            }
            ClientCommand::Fence { group, block, generation, .. } => {
                self.edge.fence(group, block, generation).await?;
            }
            ClientCommand::Trim { writer, group, block, generation, unit_log2, from_bytes, .. } => {
                let writer = self.known(writer)?;
                let from_bytes = u64::from(from_bytes);
                let trim = TrimRequest { writer, group, block, generation, unit_log2, from_bytes };
                self.edge.trim(trim).await?;
            }
            ClientCommand::CloseWriter { writer, .. } => {
                let writer = self.known(writer)?;
                self.writers.borrow_mut().retain(|open| *open != writer);
                self.edge.close_writer(writer);
            }
            ClientCommand::Read {
                group,
                block,
                key_domain,
                key_version,
                unit_log2,
                block_bytes,
                offset,
                bytes,
                arena_offset,
                sparse,
                ..
            } => {
                self.check_area(arena_offset, u64::from(bytes))?;
                let read = ReadRequest {
                    group,
                    block,
                    key: (key_domain, key_version),
                    unit_log2,
                    block_bytes: u64::from(block_bytes),
                    offset: u64::from(offset),
                    bytes: u64::from(bytes),
                    sparse,
                };
                self.edge
                    .read(&read, |at, plain| {
                        self.area.copy_in(arena_offset + at, plain).expect("the range was checked");
                    })
                    .await?;
                answer.bytes = bytes;
            }
            ClientCommand::Locate { group, block, first_unit, count, arena_offset, arena_bytes, .. } => {
                self.check_area(arena_offset, u64::from(arena_bytes))?;
                let found = self.edge.locate(group, block, UnitIndex(first_unit), count).await?;
                let message = prost::Message::encode_to_vec(&located(&found));
                let bytes = u32::try_from(message.len()).ok().filter(|bytes| *bytes <= arena_bytes);
                answer.bytes =
                    bytes.ok_or(EdgeError::Invalid("the answer does not fit: locate fewer units"))?;
                self.area.copy_in(arena_offset, &message).expect("the range was checked");
            }
        }
        Ok(answer)
    }

    /// A program names only writers of its own.
    fn known(&self, writer: u64) -> Result<WriterId, EdgeError> {
        let writer = WriterId(writer);
        if self.writers.borrow().contains(&writer) { Ok(writer) } else { Err(EdgeError::UnknownWriter) }
    }

    fn check_area(&self, offset: u64, bytes: u64) -> Result<(), EdgeError> {
        self.area.check(offset, bytes).map_err(|_| EdgeError::Invalid("the range lies outside the arena"))
    }

    fn plaintext(&self, offset: u64, bytes: u32) -> Result<Rc<dyn Plaintext>, EdgeError> {
        self.check_area(offset, u64::from(bytes))?;
        let bytes = usize::try_from(bytes).expect("32 bits fit an address");
        Ok(Rc::new(InArena { area: self.area.clone(), offset, bytes }))
    }
}

/// Plaintext in a program's arena. It is read once, when it is sealed; what the program writes there meanwhile is its
/// own affair.
struct InArena {
    area: ArenaView,
    offset: u64,
    bytes: usize,
}

impl Plaintext for InArena {
    fn bytes(&self) -> usize {
        self.bytes
    }

    fn copy_out(&self, at: usize, out: &mut [u8]) {
        self.area.copy_out(self.offset + at as u64, out).expect("the range was checked when it was taken");
    }
}

fn located(found: &[novafs_edge::Located]) -> Located {
    let mut message = Located::default();
    for member in found {
        match &member.cells {
            Err(reason) => {
                message.silent_nodes.push(member.node.0);
                message.silent_reasons.push((*reason).to_owned());
            }
            Ok((device, cells)) => message.replicas.extend(cells.iter().map(|cell| LocatedUnit {
                unit: u32::from(cell.unit.0),
                node: member.node.0,
                device: device.0.to_be_bytes().to_vec(),
                position: cell.position,
                stored_bytes: cell.stored_bytes,
                generation: cell.generation.0,
                digest: cell.digest.to_vec(),
                plain_bytes: cell.plain_bytes,
                counter: cell.counter,
                ..LocatedUnit::default()
            })),
        }
    }
    message
}

fn status_of(error: &EdgeError) -> Status {
    match error {
        EdgeError::UnknownGroup { .. } | EdgeError::Unavailable { .. } | EdgeError::Uncut { .. } => {
            Status::Unavailable
        }
        EdgeError::Full { .. } => Status::Full,
        EdgeError::Fenced { .. } => Status::Fenced,
        EdgeError::Corrupt { .. } => Status::Corrupt,
        EdgeError::Missing { .. } => Status::NotFound,
        EdgeError::NoKey { .. } => Status::NoKey,
        EdgeError::KeyDropped { .. } => Status::KeyDropped,
        EdgeError::UnknownWriter | EdgeError::Invalid(_) => Status::Invalid,
        EdgeError::TooManyBlocks { .. } => Status::Busy,
        EdgeError::TooManyWriters { .. } => Status::TooMany,
    }
}
