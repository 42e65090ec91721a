//! Records sealed and opened by rustls: what those of this crate are held against. Everything is copied, in and out.

use core::cell::{Cell, RefCell};
use std::rc::Rc;

use nova_buf::SharedBuf;
use nova_device::{Lane, LaneError};

use crate::counters::Tally;
use crate::end::{End, Next};
use crate::memory::Memory;
use crate::sums::Summer;

use super::Records;

/// Received at once.
const RECEIVE_BYTES: usize = 64 << 10;

pub(super) struct ByRustls {
    state: RefCell<State>,
    memory: Memory,
    tally: Rc<Tally>,
    /// A send is under way, or was dropped half way or failed.
    sending: Cell<bool>,
    /// The same of a receive.
    receiving: Cell<bool>,
}

struct State {
    end: End,
    /// Sealed bytes that came; less than a record after a look.
    incoming: Vec<u8>,
    /// Opened bytes that nobody has taken yet.
    opened: Vec<u8>,
    /// What rustls says of its own accord, before the next data.
    owed: Vec<u8>,
    closed: bool,
}

impl State {
    /// Lets rustls look at all that came.
    fn look(&mut self) -> Result<(), LaneError> {
        loop {
            match self.end.step(&mut self.incoming, &mut self.owed, &mut self.opened) {
                Ok(Next::Go | Next::Send) => {}
                // It says so once, and for ever when both directions have ended.
                Ok(Next::Closed) if !self.closed => self.closed = true,
                Ok(Next::Closed | Next::Receive | Next::Done) => return Ok(()),
                Err(_) => return Err(LaneError::Forged),
            }
        }
    }

    fn take(&mut self, into: &mut [u8]) -> usize {
        let bytes = self.opened.len().min(into.len());
        into[..bytes].copy_from_slice(&self.opened[..bytes]);
        self.opened.drain(..bytes);
        bytes
    }
}

impl ByRustls {
    pub(super) fn new(end: End, early: Vec<u8>, rest: Vec<u8>, memory: Memory, tally: Rc<Tally>) -> Self {
        let state = State { end, incoming: rest, opened: early, owed: Vec::new(), closed: false };
        Self {
            state: RefCell::new(state),
            memory,
            tally,
            sending: Cell::new(false),
            receiving: Cell::new(false),
        }
    }

    /// Seals these, behind what is owed.
    fn seal(&self, pieces: [&[u8]; 2]) -> Result<Vec<u8>, LaneError> {
        let mut state = self.state.borrow_mut();
        state.look()?;
        let mut out = core::mem::take(&mut state.owed);
        let State { end, incoming, .. } = &mut *state;
        for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
            end.seal(incoming, piece, &mut out).map_err(|_| LaneError::Forged)?;
            self.tally.count(|tally| tally.bytes_sealed += piece.len() as u64);
        }
        Ok(out)
    }

    async fn receive_all(&self, lane: &impl Lane, into: &mut [u8], min: usize) -> Result<usize, LaneError> {
        let mut filled = 0;
        loop {
            {
                let mut state = self.state.borrow_mut();
                state.look()?;
                let taken = state.take(&mut into[filled..]);
                filled += taken;
                self.tally.count(|tally| {
                    tally.bytes_opened += taken as u64;
                    tally.bytes_copied += taken as u64;
                });
                if filled >= min {
                    return Ok(filled);
                }
                if state.closed {
                    return Err(LaneError::Closed);
                }
            }
            let stage = self.memory.pool.try_take(RECEIVE_BYTES);
            let stage = stage.map_err(|_| LaneError::NoResources { errno: super::NO_MEMORY })?;
            self.tally.count(|tally| tally.receives += 1);
            let (received, stage) = lane.recv_some(stage, 1).await;
            match received {
                Ok(received) => self.state.borrow_mut().incoming.extend_from_slice(&stage[..received]),
                Err(LaneError::Closed) => return Err(LaneError::Broken { errno: super::TRUNCATED }),
                Err(error) => return Err(error),
            }
        }
    }
}

impl Records for ByRustls {
    async fn send(&self, lane: &impl Lane, head: &[u8], body: Option<SharedBuf>) -> Result<(), LaneError> {
        if self.sending.replace(true) {
            return Err(LaneError::Poisoned);
        }
        let sealed = self.seal([head, body.as_deref().unwrap_or_default()])?;
        self.tally.count(|tally| {
            tally.bytes_copied += sealed.len() as u64;
            tally.sends += 1;
        });
        lane.send(&sealed, None).await?;
        self.sending.set(false);
        Ok(())
    }

    async fn receive(
        &self,
        lane: &impl Lane,
        into: &mut [u8],
        min: usize,
        summer: Option<&mut Summer>,
    ) -> Result<usize, LaneError> {
        if self.receiving.replace(true) {
            return Err(LaneError::Poisoned);
        }
        let result = self.receive_all(lane, into, min).await;
        if let (Ok(filled), Some(summer)) = (result, summer) {
            summer.add(&into[..filled]);
        }
        self.receiving.set(result.is_err() && result != Err(LaneError::Closed));
        result
    }

    async fn close(&self, lane: &impl Lane) -> Result<(), LaneError> {
        if self.sending.replace(true) {
            return Err(LaneError::Poisoned);
        }
        let mut sealed = self.seal([&[], &[]])?;
        {
            let State { end, incoming, .. } = &mut *self.state.borrow_mut();
            end.close(incoming, &mut sealed).map_err(|_| LaneError::Forged)?;
        }
        lane.send(&sealed, None).await
    }
}
