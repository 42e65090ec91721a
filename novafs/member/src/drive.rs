//! Inputs into the machine, effects out of it.

use std::future::Future;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use nova_buf::SharedBuf;
use nova_device::{Clock, Durability, Peers, Shard};
use nova_units::{CommitPoint, GroupId, TaskClass};
use novafs_format::LogEntry;
use novafs_replica::{Effect, Input, KnownUnit, OpId, Standing, StoreFault, StoreRequest, Stored, Version};
use novafs_store::{ReadError, StoreError};

use crate::{Member, REPORTS_MAX, record};

/// What the store says of a request of the machine.
pub(crate) type StoredResult = Result<Stored<SharedBuf>, StoreFault>;

impl<S: Shard, P: Peers> Member<S, P> {
    /// Gives the machine an input and begins what it asks for.
    pub(crate) fn feed(self: &Rc<Self>, input: Input<SharedBuf>) {
        let mut drive = self.drive.borrow_mut();
        drive.inputs.push_back(input);
        if drive.running {
            return;
        }
        drive.running = true;
        let mut effects = Vec::new();
        while let Some(input) = drive.inputs.pop_front() {
            let now = self.shard.clock().now();
            drive.host.on(now, input, &mut effects);
            drop(drive);
            for effect in effects.drain(..) {
                self.carry_out(effect);
            }
            drive = self.drive.borrow_mut();
        }
        drive.running = false;
    }

    /// The device failed in something the machine did not ask for.
    pub(crate) fn fail_device(self: &Rc<Self>) {
        let mut effects = Vec::new();
        let now = self.shard.clock().now();
        self.drive.borrow_mut().host.fail_device(now, &mut effects);
        for effect in effects {
            self.carry_out(effect);
        }
    }

    pub(crate) fn carry_out(self: &Rc<Self>, effect: Effect<SharedBuf>) {
        match effect {
            Effect::Answer { ticket, answer, body } => {
                let waiting = self.drive.borrow_mut().waiting.remove(&ticket);
                // Who asked may be gone by now; then nobody needs the answer.
                let _ = waiting.map(|waiting| waiting.send((answer, body)));
            }
            Effect::Call { call, to, message, body, deadline } => {
                let member = Rc::clone(self);
                self.shard.spawn(TaskClass::Client, async move {
                    let reply = member.ask(to, &message, body, deadline).await;
                    member.feed_if_running(Input::Replied { call, reply });
                });
            }
            Effect::Commit { group, seq } => self.store.commit(group, seq),
            Effect::Store { op, request } => self.begin(op, request),
            Effect::Report(report) => self.queue_report(report),
            Effect::WakeAt(at) => self.wake_at(at),
        }
    }

    fn feed_if_running(self: &Rc<Self>, input: Input<SharedBuf>) {
        if !self.stopped.get() {
            self.feed(input);
        }
    }

    pub(crate) fn queue_report(&self, report: novafs_replica::Report) {
        let mut drive = self.drive.borrow_mut();
        if drive.reports.contains(&report) {
            return;
        }
        if drive.reports.len() >= REPORTS_MAX {
            drive.reports.pop_front();
            self.count(|counters| counters.reports_dropped += 1);
        }
        drive.reports.push_back(report);
    }

    fn wake_at(self: &Rc<Self>, at: Duration) {
        let now = self.shard.clock().now();
        if self.wake_at.get().is_some_and(|set| set > now && set <= at) {
            return;
        }
        self.wake_at.set(Some(at));
        let member = Rc::clone(self);
        self.shard.spawn(TaskClass::Control, async move {
            member.shard.clock().sleep_until(at).await;
            if member.wake_at.get() == Some(at) {
                member.wake_at.set(None);
            }
            if !member.stopped.get() {
                member.tick();
            }
        });
    }

    /// Begins a request to the store. It is polled here once, so that the store takes requests in the order in which
    /// the machine made them; the rest of it runs as a task.
    fn begin(self: &Rc<Self>, op: OpId, request: StoreRequest<SharedBuf>) {
        let member = Rc::clone(self);
        let mut work = Box::pin(async move { member.serve_store(request).await });
        let mut context = Context::from_waker(Waker::noop());
        match work.as_mut().poll(&mut context) {
            Poll::Ready(result) => self.drive.borrow_mut().inputs.push_back(Input::Stored { op, result }),
            Poll::Pending => {
                let member = Rc::clone(self);
                self.shard.spawn(TaskClass::Wal, async move {
                    let result = work.await;
                    member.feed_if_running(Input::Stored { op, result });
                });
            }
        }
    }

    async fn serve_store(self: Rc<Self>, request: StoreRequest<SharedBuf>) -> StoredResult {
        let done = match request {
            StoreRequest::Append { group, at, entry, body } => self.append(group, at, &entry, body).await,
            StoreRequest::SaveGroup { group, saved } => {
                if saved.standing != Standing::Filling {
                    self.health.borrow_mut().fill_ends(group);
                }
                self.store.set_group(group, record::to_record(saved)).await
            }
            StoreRequest::DiscardAbove { group, seq } => self.store.discard_above(group, seq).await,
            StoreRequest::Empty { group, saved, through } => self.empty(group, saved, through).await,
            StoreRequest::StartAnew(incarnation) => self.start_anew(incarnation).await,
            StoreRequest::SettleMount => self.store.settle_mount().await,
            StoreRequest::PutPage { group, fences, units, body, lost } => {
                self.put_page(group, fences, units, body, lost).await
            }
            StoreRequest::Lookup { group, units } => return self.look_up(group, &units).await,
            StoreRequest::Load { group, after } => return self.load(group, after).await,
            StoreRequest::Scan { group, from } => return self.scan(group, from).await,
        };
        done.map(|()| Stored::Done).map_err(|error| fault(&error))
    }

    async fn append(
        &self,
        group: GroupId,
        at: CommitPoint,
        entry: &LogEntry,
        body: Option<SharedBuf>,
    ) -> Result<(), StoreError> {
        self.count(|counters| {
            counters.appends += 1;
            counters.bytes_appended += entry.body_bytes() as u64;
        });
        let begun = self.shard.clock().now();
        let appended = self.store.append(group, at, entry, body, Durability::Synced).await;
        if appended.is_ok() {
            let now = self.shard.clock().now();
            self.pace.borrow_mut().record(now, now.saturating_sub(begun));
        }
        if let Err(StoreError::Full { .. }) = &appended {
            self.reclaim(entry.units().iter().map(|unit| unit.stored_bytes));
        }
        appended
    }

    /// After the store had no room for units of these sizes: asking for it once more makes the store bring back the
    /// cells of units that were replaced.
    pub(crate) fn reclaim(&self, stored_bytes: impl IntoIterator<Item = u32>) {
        drop(self.store.reserve(stored_bytes));
    }

    async fn start_anew(&self, incarnation: nova_units::Incarnation) -> Result<(), StoreError> {
        for held in self.store.groups() {
            self.store.drop_group(held.group).await?;
        }
        self.store.set_incarnation(incarnation).await
    }

    async fn look_up(
        &self,
        group: GroupId,
        units: &[(nova_units::BlockId, nova_units::UnitIndex)],
    ) -> StoredResult {
        let mut known = Vec::with_capacity(units.len());
        for run in units.chunk_by(|one, next| one.0 == next.0 && one.1.0.checked_add(1) == Some(next.1.0)) {
            let (block, first) = run[0];
            let fence = self.store.fence_of(group, block);
            let cut = self.store.block_of(group, block).map(|record| record.cut).unwrap_or_default();
            let records =
                self.records(group, block, first, run.len()).await.map_err(|error| fault(&error))?;
            let mut records = records.iter().peekable();
            for (_, unit) in run {
                let record = records.next_if(|record| record.sealed.unit == *unit);
                let version = record.map(|record| Version {
                    generation: record.sealed.generation,
                    counter: record.sealed.counter,
                    salt: record.sealed.salt,
                    digest: record.sealed.digest,
                    seq: record.commit.seq,
                });
                known.push(KnownUnit { version, fence, cut });
            }
        }
        Ok(Stored::Known(known))
    }
}

/// What an error of the store means to the machine.
pub(crate) fn fault(error: &StoreError) -> StoreFault {
    match error {
        // Damaged metadata is not repaired in place: the device starts anew and is filled from the others.
        StoreError::DeviceFailed | StoreError::Closed | StoreError::Metadata { .. } => {
            StoreFault::DeviceFailed
        }
        StoreError::Full { .. } | StoreError::TooMuchPrepared | StoreError::NotNext { .. } => {
            StoreFault::Full
        }
        _ => StoreFault::Corrupt,
    }
}

/// What a failed read means to the machine.
pub(crate) fn read_fault(error: &ReadError) -> StoreFault {
    match error {
        ReadError::Store(error) => fault(error),
        _ => StoreFault::Corrupt,
    }
}
