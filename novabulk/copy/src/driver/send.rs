//! Moves the bytes: workers that each take the next piece of work, read it at the source and write it at the target.

use core::cell::RefCell;
use core::time::Duration;
use std::collections::BTreeMap;

use futures_lite::future::{or, zip};
use nova_buf::SharedBuf;
use nova_device::sync::{Notify, join_all};
use nova_device::{Clock as _, Shard as _};
use novabulk_files::{
    Acked, BLOCK_BYTES, Bucket, Digest, Entry, Extent, Fault, Kind, Pack, PackFile, Packed, Plan, Reopened,
    Reply, Request, Work, block_count, block_range,
};

use super::{Copy, Item};
use crate::end::{Answered, End};
use crate::trouble::{CopyError, Trouble};

/// Pieces of work under way for each stream: one is read, one is on the wire, one is written, one waits.
const WORKERS_PER_STREAM: usize = 4;
/// Blocks of holes that the source may tell of, before it counts as broken.
const RANGE_PAGES_MAX: usize = 1 << 20;

/// What workers share.
struct Bench<'a> {
    copy: &'a Copy<'a>,
    /// As they are now: a file that changed is looked at again.
    items: RefCell<Vec<Item>>,
    plan: RefCell<Plan>,
    bucket: RefCell<Bucket>,
    /// Bytes of each file that count as there: taken back when they come again.
    counted: RefCell<BTreeMap<usize, u64>>,
    changed: Notify,
    broken: RefCell<Option<CopyError>>,
}

impl Copy<'_> {
    /// Offers all to the target, and sends what it wants meanwhile.
    pub(super) async fn send(&self, items: &[Item]) -> Result<(), CopyError> {
        let bench = Bench {
            copy: self,
            items: RefCell::new(items.to_vec()),
            plan: RefCell::default(),
            bucket: RefCell::new(Bucket::new(self.orders.bytes_per_second)),
            counted: RefCell::default(),
            changed: Notify::new(),
            broken: RefCell::default(),
        };
        let workers = WORKERS_PER_STREAM * usize::from(self.orders.streams.max(1));
        zip(bench.offer(items), join_all((0..workers).map(|_| bench.work()))).await;
        match bench.broken.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

impl Bench<'_> {
    /// Offers all, and plans what is wanted.
    async fn offer(&self, items: &[Item]) {
        let offering = self.copy.offer(items, |wanted| {
            self.plan.borrow_mut().add(wanted.iter().map(|&place| (place, &items[place].entry)));
            self.changed.notify_all();
        });
        // When an end is gone for the workers, nobody waits for its answers either.
        let broken = async {
            while self.broken.borrow().is_none() {
                self.changed.notified().await;
            }
            Ok(())
        };
        if let Err(error) = or(offering, broken).await {
            self.broken.borrow_mut().get_or_insert(error);
        }
        self.plan.borrow_mut().complete();
        self.changed.notify_all();
    }

    /// Works until there is nothing left, or an end is gone.
    async fn work(&self) {
        while self.broken.borrow().is_none() {
            let now = self.copy.shard.clock().now();
            let next = self.plan.borrow_mut().next(now);
            let done = match self.copy.check_stopped() {
                Err(error) => Err(error),
                Ok(()) => match next {
                    Work::Done => break,
                    Work::Wait(most) => {
                        or(self.copy.shard.clock().sleep_until(now + most), self.changed.notified()).await;
                        continue;
                    }
                    Work::Open(file) => self.open(file).await,
                    Work::Block(extent) => self.block(extent).await,
                    Work::Pack(files) => self.pack(files).await,
                },
            };
            if let Err(error) = done {
                self.broken.borrow_mut().get_or_insert(error);
            }
            self.changed.notify_all();
        }
    }

    fn item(&self, file: usize) -> Item {
        self.items.borrow()[file].clone()
    }

    async fn open(&self, file: usize) -> Result<(), CopyError> {
        let item = self.item(file);
        let opened = self.opened(&item).await;
        let (blocks, held) = match opened {
            Ok(Some(opened)) => opened,
            // It was published, and only the answer was lost.
            Ok(None) => {
                self.published(file);
                return Ok(());
            }
            Err(error) => return self.fail(file, error).await,
        };
        let bytes = item.entry.bytes();
        let resumed = held.iter().filter_map(|(block, _)| block_range(bytes, *block)).map(|(_, len)| len);
        let resumed: u64 = resumed.map(u64::from).sum();
        self.count(file, resumed);
        self.copy.tally.count(|counts| counts.bytes_resumed += resumed);
        let complete = self.plan.borrow_mut().opened(file, bytes, blocks, held);
        if complete { self.publish(file).await } else { Ok(()) }
    }

    /// The blocks that have data, and those that the target holds; nothing when the target has the whole file.
    async fn opened(&self, item: &Item) -> Result<Option<(Vec<u32>, Vec<(u32, Digest)>)>, CopyError> {
        let (source, target) = (self.copy.source, self.copy.target);
        let mut held = Vec::new();
        let mut answered = target.ask(Request::Open { entry: item.at_target() }, None).await?;
        loop {
            let (blocks, next) = match answered.reply {
                Reply::Done => return Ok(None),
                Reply::Holds { blocks, next } => (blocks, next),
                _ => return Err(target.wrong("a file that is opened is answered with something else")),
            };
            let known = held.last().map(|(block, _): &(u32, Digest)| *block);
            let rises = blocks.is_sorted_by(|a, b| a.0 < b.0)
                && blocks.first().is_none_or(|first| known.is_none_or(|known| known < first.0))
                && blocks.last().is_none_or(|last| block_range(item.entry.bytes(), last.0).is_some());
            if !rises {
                return Err(target.wrong("the blocks that it holds are out of order"));
            }
            held.extend(blocks);
            let Some(from) = next.filter(|next| held.last().is_some_and(|last| last.0 < *next)) else {
                break;
            };
            answered = target.ask(Request::Held { name: item.target.clone(), from }, None).await?;
        }
        let blocks = match item.entry.kind {
            Kind::File { sparse: true, .. } => self.data_blocks(item).await?,
            _ => (0..block_count(item.entry.bytes())).collect(),
        };
        if held.iter().any(|(block, _)| blocks.binary_search(block).is_err()) {
            return Err(source.wrong("it has holes where it had data"));
        }
        Ok(Some((blocks, held)))
    }

    /// The blocks of a sparse file that are not all hole.
    async fn data_blocks(&self, item: &Item) -> Result<Vec<u32>, CopyError> {
        let source = self.copy.source;
        let bytes = item.entry.bytes();
        let (mut from, mut blocks): (u64, Vec<u32>) = (0, Vec::new());
        for _ in 0..RANGE_PAGES_MAX {
            let map = Request::Map { file: pack_file(item), from };
            let Reply::Mapped { ranges, next } = source.ask(map, None).await?.reply else {
                return Err(source.wrong("a question for holes is answered with something else"));
            };
            for (offset, length) in ranges {
                let end = offset.checked_add(length).filter(|&end| end <= bytes && length > 0);
                let end = end.ok_or_else(|| source.wrong("it has data past the end of a file"))?;
                let first = block_of(offset).max(blocks.last().map_or(0, |last| last + 1));
                blocks.extend(first..=block_of(end - 1));
            }
            match next {
                None => return Ok(blocks),
                Some(next) if next > from => from = next,
                Some(_) => break,
            }
        }
        Err(source.wrong("its list of holes does not go on"))
    }

    async fn block(&self, extent: Extent) -> Result<(), CopyError> {
        let item = self.item(extent.file);
        let moved = self.move_block(extent, &item).await;
        if self.is_stale(extent.file, &item) {
            return moved.map(drop).or_else(|error| match error {
                CopyError::Host(_) => Ok(()),
                error => Err(error),
            });
        }
        match moved {
            Ok(digest) => {
                let acked = self.plan.borrow_mut().acked(extent, digest);
                if acked != Acked::Duplicate {
                    let (_, bytes) =
                        block_range(item.entry.bytes(), extent.block).expect("a block of the file");
                    self.count(extent.file, bytes.into());
                }
                if acked == Acked::Complete { self.publish(extent.file).await } else { Ok(()) }
            }
            Err(CopyError::Host(trouble)) if trouble.fault == Fault::Corrupt => {
                self.copy.tally.count(|counts| counts.repaired += 1);
                let again = self.plan.borrow_mut().damaged(extent);
                if again { Ok(()) } else { self.fail(extent.file, trouble.into()).await }
            }
            Err(error) => self.fail(extent.file, error).await,
        }
    }

    async fn move_block(&self, extent: Extent, item: &Item) -> Result<Digest, CopyError> {
        let (offset, bytes) = block_range(item.entry.bytes(), extent.block).expect("a block of the file");
        self.keep_rate(bytes.into()).await;
        self.plan.borrow_mut().departs(extent, self.copy.shard.clock().now());
        let read = Request::Read { file: pack_file(item), offset, bytes };
        let answered = self.read(read).await?;
        let (Reply::Read { digest }, Some(body)) = (answered.reply, answered.body) else {
            return Err(self.copy.source.wrong("a read is answered with something else"));
        };
        // What came over a link is checked here, so that a bad block is never blamed on the other end. What was read in
        // this process was digested a moment ago.
        let came = matches!(self.copy.source, End::There(_));
        if body.len() as u64 != u64::from(bytes) || (came && Digest::of(&body) != digest) {
            return Err(Trouble::new(Fault::Corrupt, format!("{} arrives damaged", item.entry.name)).into());
        }
        let source = item.entry.identity.tag();
        let write = Request::Write { name: item.target.clone(), source, block: extent.block, digest };
        self.write(write, Some(body)).await?;
        Ok(digest)
    }

    async fn pack(&self, files: Vec<usize>) -> Result<(), CopyError> {
        let done = self.move_pack(&files).await;
        self.plan.borrow_mut().packed();
        match done {
            // One bad file does not take the others with it: each is tried alone.
            Err(CopyError::Host(_)) if files.len() > 1 => {
                for file in files {
                    let item = self.item(file);
                    self.plan.borrow_mut().again(file, &item.entry);
                }
                Ok(())
            }
            Err(error @ CopyError::Host(_)) => self.fail(files[0], error).await,
            done => done,
        }
    }

    async fn move_pack(&self, files: &[usize]) -> Result<(), CopyError> {
        let items: Vec<Item> = files.iter().map(|&file| self.item(file)).collect();
        self.keep_rate(items.iter().map(|item| item.entry.bytes()).sum()).await;
        let answered = self.read(Request::ReadPack { files: items.iter().map(pack_file).collect() }).await?;
        let Reply::Packed { files: packed } = answered.reply else {
            return Err(self.copy.source.wrong("a read of many is answered with something else"));
        };
        if packed.len() != items.len() {
            return Err(self.copy.source.wrong("a read of many is answered in part"));
        }
        let (mut packs, mut sent) = (Vec::new(), Vec::new());
        for ((item, packed), &file) in items.iter().zip(packed).zip(files) {
            match packed {
                Packed::Bytes { bytes, digest } if u64::from(bytes) == item.entry.bytes() => {
                    packs.push(Pack { entry: item.at_target(), digest });
                    sent.push(file);
                }
                Packed::Bytes { .. } => return Err(self.copy.source.wrong("a file of another length")),
                Packed::Failed { fault, text } => self.fail(file, Trouble { fault, text }.into()).await?,
            }
        }
        if packs.is_empty() {
            return Ok(());
        }
        let Reply::Each { failed } = self.write(Request::WritePack { packs }, answered.body).await? else {
            return Err(self.copy.target.wrong("a write of many is answered with something else"));
        };
        let mut failures = failed.into_iter().peekable();
        for (place, file) in sent.into_iter().enumerate() {
            match failures.next_if(|(failed, _, _)| usize::from(*failed) == place) {
                Some((_, fault, text)) => self.fail(file, Trouble { fault, text }.into()).await?,
                None => {
                    let bytes = self.items.borrow()[file].entry.bytes();
                    self.count(file, bytes);
                    self.published(file);
                }
            }
        }
        Ok(())
    }

    /// All blocks have come: the source has a last say, then the file gets its name.
    async fn publish(&self, file: usize) -> Result<(), CopyError> {
        let item = self.item(file);
        let (blocks, root) = self.plan.borrow().root(file);
        let stat = self.copy.source.ask(Request::Stat { name: item.entry.name.clone() }, None).await;
        let same = match stat {
            Ok(Answered { reply: Reply::Status { entry }, .. }) => entry.identity == item.entry.identity,
            Ok(_) => {
                return Err(self
                    .copy
                    .source
                    .wrong("a question for an entry is answered with something else"));
            }
            Err(error) => return self.fail(file, error).await,
        };
        if !same {
            let text = format!("{} changed while it was copied", item.entry.name);
            return self.fail(file, Trouble::new(Fault::Changed, text).into()).await;
        }
        let publish = Request::Publish { name: item.target.clone(), blocks, root };
        match self.copy.target.ask(publish, None).await {
            Ok(_) => {
                self.published(file);
                Ok(())
            }
            Err(error) => self.fail(file, error).await,
        }
    }

    fn published(&self, file: usize) {
        self.plan.borrow_mut().end(file);
        self.copy.tally.count(|counts| counts.files += 1);
    }

    /// Something went wrong with one file. Ends the copy only when an end is gone.
    async fn fail(&self, file: usize, error: CopyError) -> Result<(), CopyError> {
        let CopyError::Host(trouble) = error else { return Err(error) };
        match trouble.fault {
            Fault::NotOpen | Fault::Missing => {
                // The target started anew. Whatever it holds is asked for again, and counted again.
                let reopened = self.plan.borrow_mut().reopen(file);
                match reopened {
                    Reopened::Again => self.uncount(file),
                    Reopened::Late => {}
                    Reopened::TooOften => self.copy.tally.fail(trouble.text),
                }
                Ok(())
            }
            Fault::Changed => self.look_again(file, trouble).await,
            _ => {
                let open = self.plan.borrow().is_open(file);
                let small = self.items.borrow()[file].entry.is_small();
                self.plan.borrow_mut().end(file);
                // The first worker that fails with a file tells; the others are late.
                if open || small {
                    self.copy.tally.fail(trouble.text);
                }
                Ok(())
            }
        }
    }

    /// The source is not what it was: it is copied as it is now, a few times.
    async fn look_again(&self, file: usize, trouble: Trouble) -> Result<(), CopyError> {
        let item = self.item(file);
        if !item.entry.is_small() && !self.plan.borrow().is_open(file) {
            return Ok(());
        }
        self.uncount(file);
        let again = self.plan.borrow_mut().changed(file);
        if !item.entry.is_small() {
            // What has come is of a file that is no more. A target that does not know it has nothing to throw away.
            let _ = self.copy.target.ask(Request::Abandon { name: item.target.clone() }, None).await;
        }
        if !again {
            self.copy.tally.fail(format!("{}: copy it when nobody writes to it", trouble.text));
            return Ok(());
        }
        match self.copy.source.ask(Request::Stat { name: item.entry.name.clone() }, None).await {
            Ok(Answered { reply: Reply::Status { entry }, .. }) if entry.is_file() => {
                let (before, after) = (item.entry.bytes(), entry.bytes());
                self.copy.tally.count(|counts| counts.bytes_total = counts.bytes_total + after - before);
                let entry = Entry { name: item.entry.name, ..entry };
                self.plan.borrow_mut().again(file, &entry);
                self.items.borrow_mut()[file].entry = entry;
                Ok(())
            }
            Ok(_) => {
                self.copy.tally.fail(trouble.text);
                Ok(())
            }
            Err(CopyError::Host(trouble)) => {
                self.copy.tally.fail(trouble.text);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the file was looked at again since, and is another one now.
    fn is_stale(&self, file: usize, item: &Item) -> bool {
        self.items.borrow()[file].entry.identity != item.entry.identity
    }

    /// So many bytes of a file are there.
    fn count(&self, file: usize, bytes: u64) {
        *self.counted.borrow_mut().entry(file).or_default() += bytes;
        self.copy.tally.count(|counts| counts.bytes += bytes);
    }

    /// What came of a file does not count any more.
    fn uncount(&self, file: usize) {
        let bytes = self.counted.borrow_mut().remove(&file).unwrap_or(0);
        self.copy.tally.count(|counts| counts.bytes -= bytes);
    }

    async fn read(&self, request: Request) -> Result<Answered, CopyError> {
        let begun = self.copy.shard.clock().now();
        let answered = self.copy.source.ask(request, None).await?;
        let (total, disk) = (self.copy.shard.clock().now() - begun, answered.disk);
        self.copy.tally.wait(|waits| {
            waits.source_disk += disk.min(total);
            waits.link += total.saturating_sub(disk);
        });
        Ok(answered)
    }

    async fn write(&self, request: Request, body: Option<SharedBuf>) -> Result<Reply, CopyError> {
        let bytes = body.as_ref().map_or(0, |body| body.len() as u64);
        let begun = self.copy.shard.clock().now();
        let answered = self.copy.target.ask(request, body).await?;
        let (total, disk) = (self.copy.shard.clock().now() - begun, answered.disk);
        self.copy.tally.count(|counts| counts.bytes_sent += bytes);
        self.copy.tally.wait(|waits| {
            waits.target_disk += disk.min(total);
            waits.link += total.saturating_sub(disk);
        });
        Ok(answered.reply)
    }

    async fn keep_rate(&self, bytes: u64) {
        let clock = self.copy.shard.clock();
        let now = clock.now();
        let wait = self.bucket.borrow_mut().take(now, bytes);
        if wait > Duration::ZERO {
            clock.sleep_until(now + wait).await;
            self.copy.tally.wait(|waits| waits.rate += wait);
        }
    }
}

fn pack_file(item: &Item) -> PackFile {
    PackFile { name: item.entry.name.clone(), identity: item.entry.identity }
}

fn block_of(offset: u64) -> u32 {
    u32::try_from(offset / u64::from(BLOCK_BYTES)).expect("a file has at most 2^30 blocks")
}
