//! What is sent next: files by falling length, block by block, and small ones many at a time, folder by folder.

use core::cmp::Reverse;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{BLOCK_BYTES, Digest, Entry, HEAD_BYTES_MAX, root_of};

/// Files of which blocks are under way at the same time.
pub const OPEN_FILES_MAX: usize = 8;
/// A block without an answer for this long is sent a second time when there is nothing else to do.
pub const SENT_TWICE_AFTER: Duration = Duration::from_secs(5);
/// A file that cannot be had as it was is looked at again this often.
const ATTEMPTS_MAX: u8 = 3;
/// A block that arrives other than it left is read and sent again this often.
const REPAIRS_MAX: u8 = 3;
/// A file is opened again this often; two copies to one name would otherwise take it from each other for ever.
const REOPENS_MAX: u8 = 32;
/// What an entry takes of a head beside what it says: a digest in a pack, a failure in the answer.
const PACK_FILE_BYTES: usize = 40;

/// A block of a file; the file by its place in the list that the plan was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Extent {
    /// Which file.
    pub file: usize,
    /// Which block.
    pub block: u32,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Open this file at the receiver.
    Open(usize),
    /// Read this block and send it.
    Block(Extent),
    /// Read these files and send them.
    Pack(Vec<usize>),
    /// Nothing until something of what is under way ends, or this much time has passed.
    Wait(Duration),
    /// All is done.
    Done,
}

/// What becomes of a file that the receiver does not know any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reopened {
    /// It is opened again.
    Again,
    /// Another worker has seen to that.
    Late,
    /// That was done too often: something is wrong there, and nothing more is done for the file.
    TooOften,
}

/// What an acknowledged block means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acked {
    /// Another one had come first.
    Duplicate,
    /// The file has more.
    More,
    /// All blocks of the file have come: publish it.
    Complete,
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    /// When it left; nothing while it waits for its turn at the rate that is kept.
    since: Option<Duration>,
    copies: u8,
}

/// A file whose blocks are on their way.
#[derive(Debug, Default)]
struct Sending {
    bytes: u64,
    waiting: VecDeque<u32>,
    under_way: BTreeMap<u32, Flight>,
    come: BTreeMap<u32, Digest>,
    repairs: BTreeMap<u32, u8>,
}

impl Sending {
    fn is_complete(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_empty()
    }
}

/// Small files that go together.
#[derive(Debug, Default)]
struct Filling {
    files: Vec<usize>,
    body_bytes: u64,
    head_bytes: usize,
}

/// Hands out the work of a copy. Whoever takes some says later what became of it.
#[derive(Debug, Default)]
pub struct Plan {
    /// With their lengths: the longest first, and of the same length the first that came.
    large: BTreeSet<(Reverse<u64>, usize)>,
    packs: VecDeque<Vec<usize>>,
    /// Waits for more.
    filling: Filling,
    /// No more files will be added.
    is_whole: bool,
    /// In the order in which they were opened; nothing while a file is being opened or published.
    sending: BTreeMap<usize, Option<Sending>>,
    order: Vec<usize>,
    /// To be opened before all others: they were begun already.
    begun: VecDeque<usize>,
    attempts: BTreeMap<usize, u8>,
    reopened: BTreeMap<usize, u8>,
    packs_under_way: usize,
}

impl Plan {
    /// Of the files among `entries` at these places, and no others.
    #[must_use]
    pub fn new(entries: &[Entry], wanted: &[usize]) -> Self {
        let mut plan = Self::default();
        plan.add(wanted.iter().map(|&file| (file, &entries[file])));
        plan.complete();
        plan
    }

    /// Adds files, each by its place. Small ones go together in the order in which they are added.
    pub fn add<'a>(&mut self, files: impl IntoIterator<Item = (usize, &'a Entry)>) {
        for (file, entry) in files {
            if entry.is_small() {
                self.fill(file, entry);
            } else {
                self.large.insert((Reverse(entry.bytes()), file));
            }
        }
    }

    /// All files have been added.
    pub fn complete(&mut self) {
        self.is_whole = true;
        self.close_pack();
    }

    /// Puts a small file into the pack that is being filled: as many as body and head hold.
    fn fill(&mut self, file: usize, entry: &Entry) {
        // Half of a head: names of the target may be longer than those of the source.
        let (body, head) = (entry.bytes(), entry.head_bytes() + PACK_FILE_BYTES);
        if self.filling.body_bytes + body > u64::from(BLOCK_BYTES)
            || self.filling.head_bytes + head > HEAD_BYTES_MAX / 2
        {
            self.close_pack();
        }
        self.filling.files.push(file);
        self.filling.body_bytes += body;
        self.filling.head_bytes += head;
    }

    fn close_pack(&mut self) {
        let Filling { files, .. } = core::mem::take(&mut self.filling);
        if !files.is_empty() {
            self.packs.push_back(files);
        }
    }

    /// The next thing to do.
    pub fn next(&mut self, now: Duration) -> Work {
        for &file in &self.order {
            let Some(Some(sending)) = self.sending.get_mut(&file) else { continue };
            if let Some(block) = sending.waiting.pop_front() {
                sending.under_way.insert(block, Flight { since: None, copies: 1 });
                return Work::Block(Extent { file, block });
            }
        }
        if self.sending.len() < OPEN_FILES_MAX
            && let Some(file) =
                self.begun.pop_front().or_else(|| self.large.pop_first().map(|(_, file)| file))
        {
            self.sending.insert(file, None);
            self.order.push(file);
            return Work::Open(file);
        }
        if let Some(pack) = self.packs.pop_front() {
            self.packs_under_way += 1;
            return Work::Pack(pack);
        }
        self.send_twice(now)
    }

    /// The oldest block without an answer, or how long there is nothing to do.
    fn send_twice(&mut self, now: Duration) -> Work {
        let nothing_left = self.is_whole && self.sending.is_empty() && self.packs_under_way == 0;
        let flights = self.sending.iter_mut().filter_map(|(file, sending)| Some((*file, sending.as_mut()?)));
        let oldest = flights
            .flat_map(|(file, sending)| {
                sending
                    .under_way
                    .iter_mut()
                    .map(move |(block, flight)| (Extent { file, block: *block }, flight))
            })
            .filter(|(_, flight)| flight.copies == 1)
            .filter_map(|(extent, flight)| Some((flight.since? + SENT_TWICE_AFTER, extent, flight)))
            .min_by_key(|(due, extent, _)| (*due, *extent));
        match oldest {
            Some((due, extent, flight)) if due <= now => {
                flight.copies += 1;
                Work::Block(extent)
            }
            Some((due, ..)) => Work::Wait(due - now),
            None if nothing_left => Work::Done,
            None => Work::Wait(SENT_TWICE_AFTER),
        }
    }

    /// The file is open: `held` is there already, `blocks` are to be sent. Tells whether it is complete.
    pub fn opened(&mut self, file: usize, bytes: u64, blocks: Vec<u32>, held: Vec<(u32, Digest)>) -> bool {
        let come: BTreeMap<u32, Digest> = held.into_iter().collect();
        let waiting: VecDeque<u32> = blocks.into_iter().filter(|block| !come.contains_key(block)).collect();
        let complete = waiting.is_empty();
        let sending = Sending { bytes, waiting, come, ..Sending::default() };
        if let Some(place) = self.sending.get_mut(&file) {
            *place = Some(sending);
        }
        complete
    }

    /// The block leaves now.
    pub fn departs(&mut self, extent: Extent, now: Duration) {
        let sending = self.sending.get_mut(&extent.file).and_then(Option::as_mut);
        let flight = sending.and_then(|sending| sending.under_way.get_mut(&extent.block));
        if let Some(flight) = flight {
            flight.since.get_or_insert(now);
        }
    }

    /// The block has come.
    pub fn acked(&mut self, extent: Extent, digest: Digest) -> Acked {
        let Some(Some(sending)) = self.sending.get_mut(&extent.file) else { return Acked::Duplicate };
        if sending.under_way.remove(&extent.block).is_none() {
            return Acked::Duplicate;
        }
        sending.come.insert(extent.block, digest);
        if sending.is_complete() { Acked::Complete } else { Acked::More }
    }

    /// The block arrived other than it left. Tells whether it is to be sent again: not more than three times.
    pub fn damaged(&mut self, extent: Extent) -> bool {
        let Some(Some(sending)) = self.sending.get_mut(&extent.file) else { return true };
        let repairs = sending.repairs.entry(extent.block).or_default();
        *repairs += 1;
        let again = *repairs <= REPAIRS_MAX;
        if again && sending.under_way.remove(&extent.block).is_some() {
            sending.waiting.push_front(extent.block);
        }
        again
    }

    /// How many blocks of the file have come, and the root over them.
    ///
    /// # Panics
    /// When the file is not open.
    #[must_use]
    pub fn root(&self, file: usize) -> (u32, Digest) {
        let sending =
            self.sending.get(&file).and_then(Option::as_ref).expect("a file that is published is open");
        let count = u32::try_from(sending.come.len()).expect("a file has at most 2^30 blocks");
        (count, root_of(sending.bytes, sending.come.iter().map(|(block, digest)| (*block, *digest))))
    }

    /// The receiver has to be asked anew what it holds of the file: it started again.
    pub fn reopen(&mut self, file: usize) -> Reopened {
        if !self.sending.get(&file).is_some_and(Option::is_some) {
            return Reopened::Late;
        }
        self.end(file);
        let reopened = self.reopened.entry(file).or_default();
        *reopened += 1;
        if *reopened > REOPENS_MAX {
            return Reopened::TooOften;
        }
        self.begun.push_back(file);
        Reopened::Again
    }

    /// The file at the source is not what it was. Tells whether to look at it again: not more than three times.
    pub fn changed(&mut self, file: usize) -> bool {
        self.end(file);
        let attempts = self.attempts.entry(file).or_default();
        *attempts += 1;
        *attempts <= ATTEMPTS_MAX
    }

    /// The file is to be sent anew, as it is now.
    pub fn again(&mut self, file: usize, entry: &Entry) {
        if entry.is_small() {
            self.packs.push_back(vec![file]);
        } else {
            self.begun.push_back(file);
        }
    }

    /// Nothing more is done for the file: it is published, or has failed.
    pub fn end(&mut self, file: usize) {
        self.sending.remove(&file);
        self.order.retain(|other| *other != file);
    }

    /// Whether the file is open.
    #[must_use]
    pub fn is_open(&self, file: usize) -> bool {
        self.sending.contains_key(&file)
    }

    /// A pack has been dealt with.
    ///
    /// # Panics
    /// When none was handed out.
    pub fn packed(&mut self) {
        self.packs_under_way = self.packs_under_way.checked_sub(1).expect("a pack that ends was handed out");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Identity, Kind, Name};

    const T0: Duration = Duration::from_secs(100);

    fn file(bytes: u64) -> Entry {
        Entry {
            name: Name::new("a").unwrap(),
            mode: 0o644,
            identity: Identity { bytes, ..Identity::default() },
            xattrs: vec![],
            kind: Kind::File { links: 1, sparse: false },
        }
    }

    fn block(file: usize, block: u32) -> Work {
        Work::Block(Extent { file, block })
    }

    #[test]
    fn the_largest_file_goes_first_and_small_ones_go_together_in_their_order() {
        let entries = [file(100), file(2 << 20), file(3 << 20), file(200 << 10), file(900 << 10), file(300)];
        let mut plan = Plan::new(&entries, &[0, 1, 2, 3, 4, 5]);
        assert_eq!(plan.next(T0), Work::Open(2));
        assert_eq!(plan.next(T0), Work::Open(1), "another worker need not wait for the first");
        assert!(!plan.opened(2, 3 << 20, vec![0, 1, 2], vec![(1, Digest::default())]));
        assert_eq!([plan.next(T0), plan.next(T0), plan.next(T0)], [block(2, 0), block(2, 2), Work::Open(4)]);
        assert_eq!(plan.next(T0), Work::Pack(vec![0, 3, 5]));
        let mut ack = |block| plan.acked(Extent { file: 2, block }, Digest::default());
        assert_eq!([ack(2), ack(2), ack(0)], [Acked::More, Acked::Duplicate, Acked::Complete]);
        assert_eq!(plan.root(2).0, 3);
    }

    #[test]
    fn a_plan_that_grows_is_not_done_and_fills_its_packs() {
        let (small, large) = (file(100 << 10), file(4 << 20));
        let mut plan = Plan::default();
        assert_eq!(plan.next(T0), Work::Wait(SENT_TWICE_AFTER));
        plan.add([(0, &small), (1, &small)]);
        assert_eq!(plan.next(T0), Work::Wait(SENT_TWICE_AFTER), "there may be more for the pack");
        plan.add([(2, &large), (3, &small)]);
        assert_eq!([plan.next(T0), plan.next(T0)], [Work::Open(2), Work::Wait(SENT_TWICE_AFTER)]);
        plan.end(2);
        plan.complete();
        assert_eq!([plan.next(T0), plan.next(T0)], [Work::Pack(vec![0, 1, 3]), Work::Wait(SENT_TWICE_AFTER)]);
        plan.packed();
        assert_eq!(plan.next(T0), Work::Done);
    }

    #[test]
    fn packs_hold_at_most_a_body() {
        let entries: Vec<Entry> = (0..9).map(|_| file(250 << 10)).collect();
        let mut plan = Plan::new(&entries, &(0..9).collect::<Vec<_>>());
        let Work::Pack(pack) = plan.next(T0) else { panic!("a pack") };
        assert_eq!(pack.len(), 4);
    }

    #[test]
    fn packs_hold_at_most_half_a_head() {
        let entries: Vec<Entry> = (0..3000).map(|_| file(1)).collect();
        let mut plan = Plan::new(&entries, &(0..3000).collect::<Vec<_>>());
        while let Work::Pack(pack) = plan.next(T0) {
            let bytes: usize = pack.iter().map(|&file| entries[file].head_bytes()).sum();
            assert!(bytes <= HEAD_BYTES_MAX / 2, "{bytes}");
        }
    }

    #[test]
    fn an_idle_worker_sends_the_oldest_block_again_but_once() {
        let entries = [file(2 << 20)];
        let mut plan = Plan::new(&entries, &[0]);
        plan.next(T0);
        plan.opened(0, 2 << 20, vec![0, 1], vec![]);
        let second = T0 + Duration::from_secs(1);
        assert_eq!([plan.next(T0), plan.next(second)], [block(0, 0), block(0, 1)]);
        let late = T0 + Duration::from_secs(9);
        assert_eq!(plan.next(late), Work::Wait(SENT_TWICE_AFTER), "what has not left is not late");
        plan.departs(Extent { file: 0, block: 0 }, T0);
        plan.departs(Extent { file: 0, block: 1 }, second);
        assert_eq!(plan.next(second), Work::Wait(SENT_TWICE_AFTER - Duration::from_secs(1)));
        assert_eq!([plan.next(late), plan.next(late)], [block(0, 0), block(0, 1)]);
        assert_eq!(plan.next(late), Work::Wait(SENT_TWICE_AFTER));
    }

    #[test]
    fn a_damaged_block_is_sent_three_times_more() {
        let entries = [file(1 << 20)];
        let mut plan = Plan::new(&entries, &[0]);
        plan.next(T0);
        plan.opened(0, 1 << 20, vec![0], vec![]);
        let extent = Extent { file: 0, block: 0 };
        for _ in 0..3 {
            assert_eq!(plan.next(T0), Work::Block(extent));
            assert!(plan.damaged(extent));
        }
        assert_eq!(plan.next(T0), Work::Block(extent));
        assert!(!plan.damaged(extent));
    }

    #[test]
    fn a_changed_file_is_looked_at_three_times_more_and_nothing_hangs_on_it() {
        let entries = [file(1 << 20)];
        let mut plan = Plan::new(&entries, &[0]);
        for attempt in 0..4 {
            assert_eq!(plan.next(T0), Work::Open(0));
            plan.opened(0, 1 << 20, vec![0], vec![]);
            plan.next(T0);
            let again = plan.changed(0);
            assert_eq!(again, attempt < 3);
            if again {
                plan.again(0, &entries[0]);
            }
        }
        assert_eq!(plan.acked(Extent { file: 0, block: 0 }, Digest::default()), Acked::Duplicate);
        assert_eq!(plan.next(T0), Work::Done);
    }

    #[test]
    fn a_file_that_is_reopened_asks_again_what_is_held() {
        let entries = [file(1 << 20)];
        let mut plan = Plan::new(&entries, &[0]);
        plan.next(T0);
        assert_eq!(plan.reopen(0), Reopened::Late, "it is being opened");
        plan.opened(0, 1 << 20, vec![0], vec![]);
        assert_eq!(plan.reopen(0), Reopened::Again);
        assert_eq!(plan.next(T0), Work::Open(0));
        assert!(plan.opened(0, 1 << 20, vec![0], vec![(0, Digest::default())]), "all of it was held");
    }
}
