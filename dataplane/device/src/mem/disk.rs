//! A disk in memory with a volatile cache, power cuts and faults.

use core::{
    cell::{Cell, RefCell},
    time::Duration,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
};

use nova_buf::{DmaBuf, SharedBuf};
use nova_units::{IoClass, PAGE_BYTES};

use super::{
    DiskFaults, DiskImage, Trace, TraceEvent, World,
    image::{PAGE, Page, mix, page_of},
    world,
};
use crate::{Disk, DiskError, Done, Durability, Position, disk::check_range};

/// What the device answers to a request it cannot do.
const EIO: i32 = 5;

/// Unflushed writes beyond this many are written back by the disk itself, oldest first.
const CACHE_PAGES_MAX: usize = 16 << 10;

/// A disk in memory. A clone is another handle to the same disk, so that it outlives a host that dies.
#[derive(Clone, Debug)]
pub struct MemDisk {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    world: Rc<world::Inner>,
    bytes: u64,
    faults: Cell<DiskFaults>,
    state: RefCell<State>,
    counters: Cell<DiskCounters>,
}

#[derive(Debug)]
struct State {
    /// What reads see.
    current: DiskImage,
    /// What survives a power cut for certain.
    durable: DiskImage,
    /// Which write a durable page came from, so that an older one in the cache does not undo it.
    durable_order: BTreeMap<u64, u64>,
    /// Completed but not flushed, in the order of completion.
    cache: VecDeque<Cached>,
    cache_pages: usize,
    /// Submitted but not completed.
    under_way: BTreeMap<u64, UnderWay>,
    next_write: u64,
    next_order: u64,
    bad_pages: BTreeSet<u64>,
    failed: bool,
    trace: Option<Trace>,
}

#[derive(Debug)]
struct Cached {
    write: u64,
    order: u64,
    first: u64,
    pages: Vec<Page>,
}

#[derive(Debug)]
struct UnderWay {
    first: u64,
    pages: Vec<Page>,
    due: Duration,
    synced: bool,
    /// Its future was dropped: the disk completes it by itself.
    orphaned: bool,
}

/// What a disk did and what it suffered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCounters {
    /// Reads answered.
    pub reads: u64,
    /// Writes acknowledged.
    pub writes: u64,
    /// Flushes acknowledged.
    pub flushes: u64,
    /// Bytes of those reads.
    pub read_bytes: u64,
    /// Bytes of those writes.
    pub written_bytes: u64,
    /// Requests that failed by a fault.
    pub errors: u64,
    /// Writes acknowledged and never stored.
    pub lost_writes: u64,
    /// Flushes and syncs acknowledged that made nothing durable.
    pub lost_flushes: u64,
    /// Writes stored at a wrong position.
    pub misdirected_writes: u64,
    /// Reads that brought what is stored elsewhere.
    pub misdirected_reads: u64,
    /// Writes in which a bit flipped on their way.
    pub flipped_writes: u64,
    /// Bits that flipped.
    pub rotten_bits: u64,
    /// Power cuts.
    pub power_cuts: u64,
}

impl MemDisk {
    /// A disk of `bytes`, all zero, without faults.
    ///
    /// # Panics
    /// When `bytes` is not a multiple of 4096.
    #[must_use]
    pub fn new(world: &World, bytes: u64) -> Self {
        Self::from_image(world, DiskImage::zeroed(bytes))
    }

    /// A disk with these contents, all durable, without faults.
    #[must_use]
    pub fn from_image(world: &World, image: DiskImage) -> Self {
        let state = State {
            current: image.clone(),
            durable: image.clone(),
            durable_order: BTreeMap::new(),
            cache: VecDeque::new(),
            cache_pages: 0,
            under_way: BTreeMap::new(),
            next_write: 0,
            next_order: 0,
            bad_pages: BTreeSet::new(),
            failed: false,
            trace: None,
        };
        Self {
            inner: Rc::new(Inner {
                world: Rc::clone(&world.inner),
                bytes: image.bytes,
                faults: Cell::new(DiskFaults::NONE),
                state: RefCell::new(state),
                counters: Cell::default(),
            }),
        }
    }

    /// Sets the faults from now on.
    pub fn set_faults(&self, faults: DiskFaults) {
        self.inner.faults.set(faults);
    }

    /// What it did and suffered so far.
    #[must_use]
    pub fn counters(&self) -> DiskCounters {
        self.inner.counters.get()
    }

    /// Cuts the power now. Every unflushed sector survives by chance, those of writes under way too. The disk works
    /// again at once, as after a restart, even if it had failed; reads that failed before still fail.
    pub fn power_cut(&self) {
        let mut state = self.inner.state.borrow_mut();
        self.inner.settle(&mut state);
        let survives = self.inner.faults.get().sector_survives;
        let state = &mut *state;
        let under_way = core::mem::take(&mut state.under_way);
        let cached = state.cache.drain(..).map(|write| (write.order, write.first, write.pages));
        let torn: Vec<_> =
            cached.chain(under_way.into_values().map(|write| (u64::MAX, write.first, write.pages))).collect();
        state.cache_pages = 0;
        for (order, first, pages) in torn {
            for (number, page) in (first..).zip(pages) {
                if state.durable_order.get(&number).is_some_and(|&durable| durable > order) {
                    continue;
                }
                let mixed = self
                    .inner
                    .world
                    .draw(|rng| mix(&state.durable.get(number), &page, |_| survives.hits(rng)));
                state.durable.put(number, mixed);
            }
        }
        state.durable_order.clear();
        state.current = state.durable.clone();
        state.failed = false;
        if state.trace.is_some() {
            // What came before the cut is decided now: a trace goes on from here.
            state.trace = Some(Trace::new(state.durable.clone()));
        }
        self.inner.count(|counters| counters.power_cuts += 1);
    }

    /// Begins to record writes and flushes; what the disk holds now is the base and counts as durable.
    pub fn start_trace(&self) {
        let mut state = self.inner.state.borrow_mut();
        self.inner.settle(&mut state);
        let base = state.current.clone();
        state.trace = Some(Trace::new(base));
    }

    /// How many events the trace has so far; 0 without one.
    #[must_use]
    pub fn trace_len(&self) -> usize {
        self.inner.state.borrow().trace.as_ref().map_or(0, Trace::len)
    }

    /// A copy of the trace so far, if one was started.
    #[must_use]
    pub fn trace(&self) -> Option<Trace> {
        self.inner.state.borrow().trace.clone()
    }

    /// What reads see now.
    #[must_use]
    pub fn image(&self) -> DiskImage {
        self.inner.state.borrow().current.clone()
    }

    /// What is certain to survive a power cut now.
    #[must_use]
    pub fn durable_image(&self) -> DiskImage {
        self.inner.state.borrow().durable.clone()
    }

    /// Flips one bit of what is stored, in the cache and on the medium.
    ///
    /// # Panics
    /// When `byte` is not on the disk or `bit` is above 7.
    pub fn flip_bit(&self, byte: u64, bit: u8) {
        let mut state = self.inner.state.borrow_mut();
        state.current.flip_bit(byte, bit);
        state.durable.flip_bit(byte, bit);
        self.inner.count(|counters| counters.rotten_bits += 1);
    }

    /// Makes every later read of the page at `at` fail with EIO, until it is written.
    ///
    /// # Panics
    /// When `at` is not the start of a page.
    pub fn break_page(&self, at: Position) {
        assert!(at.is_aligned(), "no page at {at}");
        self.inner.state.borrow_mut().bad_pages.insert(at.0 / PAGE_BYTES);
    }

    /// Fails the disk now: every request answers [`DiskError::Failed`] until power is cut.
    pub fn fail(&self) {
        self.inner.state.borrow_mut().failed = true;
    }

    /// Whether it has failed.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        self.inner.state.borrow().failed
    }
}

impl Inner {
    fn count(&self, change: impl FnOnce(&mut DiskCounters)) {
        let mut counters = self.counters.get();
        change(&mut counters);
        self.counters.set(counters);
    }

    fn draw<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        self.world.draw(draw)
    }

    fn latency(&self) -> Duration {
        let faults = self.faults.get();
        self.draw(|rng| {
            let slow = faults.slow.hits(rng);
            faults.latency.draw(rng) + if slow { faults.slow_by } else { Duration::ZERO }
        })
    }

    async fn pass(&self, time: Duration) {
        self.world.sleep_until(self.world.now() + time).await;
    }

    /// Completes writes whose futures were dropped and whose time has come.
    fn settle(&self, state: &mut State) {
        let now = self.world.now();
        let due: Vec<u64> = state
            .under_way
            .iter()
            .filter(|(_, write)| write.orphaned && write.due <= now)
            .map(|(&number, _)| number)
            .collect();
        for number in due {
            state.complete(number);
        }
    }

    fn fail(&self) {
        self.count(|counters| counters.errors += 1);
        let mut state = self.state.borrow_mut();
        if self.faults.get().forgives {
            // Reads still see it; no later flush makes it durable.
            state.cache.clear();
            state.cache_pages = 0;
        } else {
            state.failed = true;
        }
    }
}

impl State {
    /// Moves a write from under way to the cache, or to the medium when it is synced.
    fn complete(&mut self, write: u64) -> bool {
        let Some(UnderWay { first, pages, synced, .. }) = self.under_way.remove(&write) else { return false };
        let order = self.next_order;
        self.next_order += 1;
        for (number, page) in (first..).zip(&pages) {
            self.current.put(number, page.clone());
            self.bad_pages.remove(&number);
        }
        self.record(TraceEvent::Completed { write });
        let cached = Cached { write, order, first, pages };
        if synced {
            self.make_durable(&cached);
            self.record(TraceEvent::Durable { writes: vec![write] });
            return true;
        }
        self.cache_pages += cached.pages.len();
        self.cache.push_back(cached);
        while self.cache_pages > CACHE_PAGES_MAX {
            self.write_back_oldest();
        }
        true
    }

    fn write_back_oldest(&mut self) {
        let Some(oldest) = self.cache.pop_front() else { return };
        self.cache_pages -= oldest.pages.len();
        self.make_durable(&oldest);
        self.record(TraceEvent::Durable { writes: vec![oldest.write] });
    }

    fn make_durable(&mut self, cached: &Cached) {
        for (number, page) in (cached.first..).zip(&cached.pages) {
            let newest = self.durable_order.entry(number).or_insert(cached.order);
            if *newest <= cached.order {
                *newest = cached.order;
                self.durable.put(number, page.clone());
            }
        }
    }

    /// Makes everything durable that completed before `order`.
    fn flush_before(&mut self, order: u64) {
        let count = self.cache.iter().take_while(|write| write.order < order).count();
        let flushed: Vec<Cached> = self.cache.drain(..count).collect();
        for cached in &flushed {
            self.cache_pages -= cached.pages.len();
            self.make_durable(cached);
        }
        let writes: Vec<u64> = flushed.into_iter().map(|cached| cached.write).collect();
        if !writes.is_empty() {
            self.record(TraceEvent::Durable { writes });
        }
        if self.cache.is_empty() && self.under_way.is_empty() {
            self.durable_order.clear();
        }
    }

    fn record(&mut self, event: TraceEvent) {
        if let Some(trace) = &mut self.trace {
            trace.push(event);
        }
    }
}

/// Hands a write to the disk itself when its future is dropped.
struct InHand<'disk> {
    disk: &'disk Inner,
    write: u64,
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        if let Some(write) = self.disk.state.borrow_mut().under_way.get_mut(&self.write) {
            write.orphaned = true;
        }
    }
}

fn page_span(at: Position, bytes: usize) -> core::ops::Range<u64> {
    let first = at.0 / PAGE_BYTES;
    first..first + (bytes / PAGE) as u64
}

impl Disk for MemDisk {
    async fn read(&self, _class: IoClass, at: Position, mut into: DmaBuf) -> Done<()> {
        let disk = &*self.inner;
        if let Err(error) = check_range(at, into.len() as u64, disk.bytes) {
            return (Err(error), into);
        }
        disk.pass(disk.latency()).await;
        let faults = disk.faults.get();
        let span = page_span(at, into.len());
        if disk.draw(|rng| faults.rot.hits(rng)) {
            let (byte, bit) = disk.draw(|rng| (rng.usize(0..into.len()), rng.u8(0..8)));
            self.flip_bit(at.0 + byte as u64, bit);
        }
        let mut state = disk.state.borrow_mut();
        disk.settle(&mut state);
        if state.failed {
            return (Err(DiskError::Failed), into);
        }
        if disk.draw(|rng| faults.read_error.hits(rng)) {
            state.bad_pages.insert(span.start);
        }
        if let Some(&bad) = state.bad_pages.range(span.clone()).next() {
            disk.count(|counters| counters.errors += 1);
            return (Err(DiskError::Io { position: Position(bad * PAGE_BYTES), errno: EIO }), into);
        }
        let mut from = span.start;
        if disk.draw(|rng| faults.misdirected_read.hits(rng)) {
            let room = disk.bytes / PAGE_BYTES - (into.len() / PAGE) as u64;
            from = disk.draw(|rng| rng.u64(0..=room));
            disk.count(|counters| counters.misdirected_reads += 1);
        }
        for (number, out) in (from..).zip(into.chunks_exact_mut(PAGE)) {
            match state.current.pages.get(&number) {
                Some(page) => out.copy_from_slice(&page[..]),
                None => out.fill(0),
            }
        }
        disk.count(|counters| {
            counters.reads += 1;
            counters.read_bytes += into.len() as u64;
        });
        (Ok(()), into)
    }

    async fn write(
        &self,
        _class: IoClass,
        at: Position,
        from: SharedBuf,
        durability: Durability,
    ) -> Result<(), DiskError> {
        let disk = &*self.inner;
        check_range(at, from.len() as u64, disk.bytes)?;
        let faults = disk.faults.get();
        let mut synced = durability == Durability::Synced;
        let mut time = disk.latency();
        if synced {
            time += disk.latency();
            if disk.draw(|rng| faults.lost_flush.hits(rng)) {
                synced = false;
                disk.count(|counters| counters.lost_flushes += 1);
            }
        }
        let mut pages: Vec<Page> = from.chunks_exact(PAGE).map(page_of).collect();
        if disk.draw(|rng| faults.write_flip.hits(rng)) {
            let mut bytes = from.to_vec();
            let (byte, bit) = disk.draw(|rng| (rng.usize(0..bytes.len()), rng.u8(0..8)));
            bytes[byte] ^= 1 << bit;
            pages = bytes.chunks_exact(PAGE).map(page_of).collect();
            disk.count(|counters| counters.flipped_writes += 1);
        }
        let mut first = at.0 / PAGE_BYTES;
        let lost = disk.draw(|rng| faults.lost_write.hits(rng));
        if disk.draw(|rng| faults.misdirected_write.hits(rng)) {
            let room = disk.bytes / PAGE_BYTES - pages.len() as u64;
            first = disk.draw(|rng| rng.u64(0..=room));
            disk.count(|counters| counters.misdirected_writes += 1);
        }
        let hand = {
            let mut state = disk.state.borrow_mut();
            disk.settle(&mut state);
            if state.failed {
                return Err(DiskError::Failed);
            }
            let write = state.next_write;
            state.next_write += 1;
            if !lost {
                if let Some(trace) = &mut state.trace {
                    trace.push_write(write, first, &pages);
                }
                let due = disk.world.now() + time;
                state.under_way.insert(write, UnderWay { first, pages, due, synced, orphaned: false });
            }
            InHand { disk, write }
        };
        disk.pass(time).await;
        if disk.draw(|rng| faults.no_space.hits(rng)) {
            disk.fail();
            return Err(DiskError::NoSpace);
        }
        if disk.draw(|rng| faults.write_error.hits(rng)) {
            disk.fail();
            return Err(DiskError::Io { position: at, errno: EIO });
        }
        let mut state = disk.state.borrow_mut();
        if state.failed {
            return Err(DiskError::Failed);
        }
        if lost {
            disk.count(|counters| counters.lost_writes += 1);
        } else if !state.complete(hand.write) {
            // The power was cut under a host that lives: the device came back without this request.
            return Err(DiskError::Io { position: at, errno: EIO });
        }
        drop(state);
        disk.count(|counters| {
            counters.writes += 1;
            counters.written_bytes += from.len() as u64;
        });
        Ok(())
    }

    async fn flush(&self) -> Result<(), DiskError> {
        let disk = &*self.inner;
        let faults = disk.faults.get();
        let (before, cuts) = {
            let mut state = disk.state.borrow_mut();
            disk.settle(&mut state);
            if state.failed {
                return Err(DiskError::Failed);
            }
            (state.next_order, disk.counters.get().power_cuts)
        };
        disk.pass(disk.latency()).await;
        if disk.draw(|rng| faults.flush_error.hits(rng)) {
            disk.fail();
            return Err(DiskError::Io { position: Position(0), errno: EIO });
        }
        let mut state = disk.state.borrow_mut();
        if state.failed {
            return Err(DiskError::Failed);
        }
        if disk.counters.get().power_cuts != cuts {
            return Err(DiskError::Io { position: Position(0), errno: EIO });
        }
        if disk.draw(|rng| faults.lost_flush.hits(rng)) {
            disk.count(|counters| counters.lost_flushes += 1);
        } else {
            state.flush_before(before);
        }
        drop(state);
        disk.count(|counters| counters.flushes += 1);
        Ok(())
    }

    /// Half of the time the range reads as zeros from now on, half of the time nothing changes.
    async fn discard(&self, at: Position, bytes: u64) -> Result<(), DiskError> {
        let disk = &*self.inner;
        check_range(at, bytes, disk.bytes)?;
        let mut state = disk.state.borrow_mut();
        disk.settle(&mut state);
        if state.failed {
            return Err(DiskError::Failed);
        }
        if disk.draw(|rng| rng.bool()) {
            let first = at.0 / PAGE_BYTES;
            let numbers = first..first + bytes / PAGE_BYTES;
            let stored: Vec<u64> = state.current.pages.range(numbers).map(|(&number, _)| number).collect();
            for number in stored {
                let write = state.next_write;
                state.next_write += 1;
                if let Some(trace) = &mut state.trace {
                    trace.push_write(write, number, &[None]);
                }
                let due = disk.world.now();
                let write_of =
                    UnderWay { first: number, pages: vec![None], due, synced: false, orphaned: false };
                state.under_way.insert(write, write_of);
                state.complete(write);
            }
        }
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.inner.bytes
    }
}
