//! A host of files: answers the requests of a copy for one folder.

mod flush;
mod part;
mod relays;
mod source;
mod target;

use core::cell::{Cell, RefCell};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use nova_buf::SharedBuf;
use nova_device::{Clock as _, Handler, Incoming, Served, Shard as _};
use nova_shard::RealShard;
use nova_units::{NodeId, TaskClass};
use novabulk_files::{Fault, Identity, Name, Reply, Request};

use crate::door::Door;
use crate::folder::Folder;
use crate::trouble::Trouble;

use flush::Flushes;
use part::Part;
use relays::Relays;

/// Files that are written at the same time, over all copies.
const PARTS_MAX: usize = 256;
/// A file of which nothing was heard for this long is closed; what came of it stays for the next attempt.
const PART_IDLE_MAX: Duration = Duration::from_secs(60);
/// Between two looks at that.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// Files kept open for reading.
const READERS_MAX: usize = 64;
/// Files remembered as published, for who asks again because the answer was lost.
const PUBLISHED_MAX: usize = 4096;

/// What a host lets others do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostOptions {
    /// Nothing is changed.
    pub read_only: bool,
    /// Others may have this host copy to a third one.
    pub relay: bool,
    /// Longest file that is taken, in bytes.
    pub file_bytes_max: u64,
}

impl Default for HostOptions {
    fn default() -> Self {
        Self { read_only: false, relay: false, file_bytes_max: novabulk_files::FILE_BYTES_MAX }
    }
}

/// Serves the files of one folder.
#[derive(Debug)]
pub struct Host {
    shard: RealShard,
    folder: Arc<Folder>,
    options: HostOptions,
    /// How it reaches a third host; one without copies to none.
    door: Option<Door>,
    parts: RefCell<BTreeMap<Name, Rc<Part>>>,
    /// Files that are being opened now: nobody else opens them meanwhile.
    opening: RefCell<Vec<Name>>,
    /// Small files that are being written now: a pack that is asked for again waits for itself.
    laying: RefCell<BTreeSet<Name>>,
    published: RefCell<Published>,
    readers: RefCell<VecDeque<source::Reading>>,
    flushes: Flushes,
    relays: Relays,
}

/// Which sources were published, and what the files were then.
#[derive(Debug, Default)]
struct Published {
    by_name: BTreeMap<Name, (Identity, Identity)>,
    order: VecDeque<Name>,
}

/// The answer to a request, before it is a message.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) reply: Reply,
    pub(crate) body: Option<SharedBuf>,
    /// What was waited for the file system.
    pub(crate) disk: Duration,
}

/// Adds up what is waited for the file system.
#[derive(Debug, Default)]
struct Stopwatch(Cell<Duration>);

impl Stopwatch {
    /// Counts what `work` takes.
    async fn time<T>(&self, shard: &RealShard, work: impl Future<Output = T>) -> T {
        let begun = shard.clock().now();
        let done = work.await;
        self.0.set(self.0.get() + shard.clock().now().saturating_sub(begun));
        done
    }
}

impl Host {
    /// A host of `folder`.
    #[must_use]
    pub fn new(shard: RealShard, folder: Folder, options: HostOptions, door: Option<Door>) -> Rc<Self> {
        let host = Rc::new(Self {
            shard,
            folder: Arc::new(folder),
            options,
            door,
            parts: RefCell::default(),
            opening: RefCell::default(),
            laying: RefCell::default(),
            published: RefCell::default(),
            readers: RefCell::default(),
            flushes: Flushes::default(),
            relays: Relays::default(),
        });
        let sweeper = Rc::downgrade(&host);
        let clock_of = host.shard.clone();
        host.shard.spawn(TaskClass::Background, async move {
            loop {
                clock_of.clock().sleep_until(clock_of.clock().now() + SWEEP_EVERY).await;
                let Some(host) = sweeper.upgrade() else { return };
                host.close_idle().await;
            }
        });
        host
    }

    pub(crate) const fn shard(&self) -> &RealShard {
        &self.shard
    }

    /// Does what `request` asks.
    pub(crate) async fn answer(self: &Rc<Self>, request: Request, body: Option<SharedBuf>) -> Answer {
        let watch = Stopwatch::default();
        let done = self.carry_out(request, body, &watch).await;
        let (reply, body) = done.unwrap_or_else(|trouble| (trouble.reply(), None));
        Answer { reply, body, disk: watch.0.get() }
    }

    async fn carry_out(
        self: &Rc<Self>,
        request: Request,
        body: Option<SharedBuf>,
        watch: &Stopwatch,
    ) -> Result<(Reply, Option<SharedBuf>), Trouble> {
        if self.options.read_only && request.changes() {
            return Err(Trouble::new(
                Fault::Denied,
                "this host only lends its files: it is served --read-only",
            ));
        }
        let reply = match request {
            Request::List { folder, after } => self.list(folder, after, watch).await,
            Request::Stat { name } => self.stat(name, watch).await,
            Request::Map { file, from } => self.map(file, from, watch).await,
            Request::Read { file, offset, bytes } => return self.read(file, offset, bytes, watch).await,
            Request::ReadPack { files } => return self.read_pack(files, watch).await,
            Request::Digest { name } => self.digest(name, watch).await,
            Request::Offer { entries, checksum, dry_run } => {
                self.offer(entries, checksum, dry_run, watch).await
            }
            Request::Open { entry } => self.open(entry, watch).await,
            Request::Held { name, from } => self.held(&name, from),
            Request::Write { name, source, block, digest } => {
                self.write(&name, source, block, digest, body, watch).await
            }
            Request::WritePack { packs } => self.write_pack(packs, body, watch).await,
            Request::Publish { name, blocks, root } => self.publish(name, blocks, root, watch).await,
            Request::Abandon { name } => self.abandon(name, watch).await,
            Request::Link { name, existing } => self.link(name, existing, watch).await,
            Request::Settle { entries } => self.settle(entries, watch).await,
            Request::Remove { names } => self.remove(names, watch).await,
            Request::Sync { folder } => self.sync(folder, watch).await,
            Request::Relay { id, sources, address, target, into, orders } => {
                self.relay(id, sources, address, target, into, orders)
            }
            Request::Relayed { id } => self.relays.status(&self.shard, id),
        };
        reply.map(|reply| (reply, None))
    }

    /// Runs what may block on a thread of its own.
    async fn blocking<T: Send + 'static>(
        &self,
        watch: &Stopwatch,
        work: impl FnOnce(&Folder) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, Trouble> {
        let folder = Arc::clone(&self.folder);
        let running = self.shard.run_blocking(move || work(&folder));
        let ran = watch.time(&self.shard, running).await;
        ran.unwrap_or_else(|error| Err(Trouble::io(&error, "start a thread for the file system")))
    }

    /// Makes durable what came of every file.
    #[cfg(test)]
    pub(crate) async fn flush_all(&self) {
        let parts: Vec<Rc<Part>> = self.parts.borrow().values().cloned().collect();
        for part in parts {
            part.flush(&self.shard).await.unwrap();
        }
    }

    /// Closes files that nobody writes any more.
    async fn close_idle(&self) {
        let now = self.shard.clock().now();
        let idle = |part: &Rc<Part>| part.used_at.get() + PART_IDLE_MAX <= now && part.is_quiet();
        let parts: Vec<Rc<Part>> = {
            let mut parts = self.parts.borrow_mut();
            let names: Vec<Name> =
                parts.iter().filter(|(_, part)| idle(part)).map(|(name, _)| name.clone()).collect();
            names.iter().filter_map(|name| parts.remove(name)).collect()
        };
        for part in parts {
            // What is not in the ledger comes again; nobody is there to be told.
            let _ = part.flush(&self.shard).await;
        }
    }
}

impl Published {
    fn add(&mut self, name: Name, source: Identity, target: Identity) {
        if self.by_name.insert(name.clone(), (source, target)).is_none() {
            self.order.push_back(name);
        }
        if self.order.len() > PUBLISHED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_name.remove(&oldest);
        }
    }
}

/// A host as a service of NovaBulk.
#[derive(Clone, Debug)]
pub(crate) struct Service(pub(crate) Rc<Host>);

impl Handler for Service {
    async fn serve(&self, _from: NodeId, incoming: Incoming) -> Served {
        let answer = match Request::decode(&incoming.head) {
            Ok(request) => self.0.answer(request, incoming.body.map(Into::into)).await,
            Err(error) => Answer { reply: Trouble::from(error).reply(), body: None, disk: Duration::ZERO },
        };
        let disk_us = u32::try_from(answer.disk.as_micros()).unwrap_or(u32::MAX);
        Served { head: answer.reply.encode(disk_us), body: answer.body }
    }
}
