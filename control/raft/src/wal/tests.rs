use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::storage::{IOFlushed, RaftLogStorage as _};
use openraft::type_config::TypeConfigExt as _;
use proptest::prelude::*;

use super::record::{
    FORMAT_VERSION_UNMARKED, Kind, RECORD_HEADER_BYTES, Record, SEGMENT_HEADER_BYTES, SegmentHeader,
};
use super::recover::{LogContent, Owner, recover};
use super::watermark::{self, Mark, SLOTS, Watermark};
use super::writer::Limits;
use crate::RaftError;
use crate::log::{LogStore, OpenLog};
use crate::types::{CommandBytes, Entry, LeaderId, LogId, Types, Vote};

const MEMBER: u64 = 3;

fn owner() -> Owner {
    Owner { member: MEMBER, group_sum: crc32fast::hash(b"cluster") }
}

/// Names the child process of [`a_disk_that_errs_ends_the_process_with_the_reason`] its folder.
const CHILD: &str = "NOVA_RAFT_TEST_CHILD";
/// Signal of `abort`, on Linux.
const SIGABRT: i32 = 6;
/// What a disk writes at once.
const SECTOR_BYTES: usize = 512;

fn small() -> Limits {
    Limits { segment_bytes: 4096, preallocate_bytes: 1024, ..Limits::default() }
}

fn id(term: u64, index: u64) -> LogId {
    LogId { leader_id: LeaderId { term, node_id: 1 }, index }
}

fn entry(term: u64, index: u64, bytes: usize) -> Entry {
    let fill = u8::try_from(index % 251).unwrap();
    Entry {
        log_id: id(term, index),
        payload: EntryPayload::Normal(CommandBytes(Bytes::from(vec![fill; bytes]))),
    }
}

/// A log that is used and then closed.
struct Session {
    runtime: tokio::runtime::Runtime,
    log: Option<OpenLog>,
}

impl Session {
    fn open(folder: &Path) -> Self {
        Self::open_with(folder, small())
    }

    fn open_with(folder: &Path, limits: Limits) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let log = LogStore::open(folder, MEMBER, "cluster", limits).unwrap();
        Self { runtime, log: Some(log) }
    }

    fn run<T>(&mut self, task: impl AsyncFnOnce(&mut LogStore) -> T) -> T {
        let log = self.log.as_mut().unwrap();
        self.runtime.block_on(task(&mut log.store))
    }

    fn append(&mut self, entries: Vec<Entry>) {
        self.run(async |log| {
            let (done, durable) = Types::oneshot();
            log.append(entries, IOFlushed::signal(done)).await.unwrap();
            durable.await.unwrap().unwrap();
        });
    }

    fn vote(&mut self, term: u64) {
        let vote = Vote { leader_id: LeaderId { term, node_id: 1 }, committed: false };
        self.run(async |log| log.save_vote(&vote).await.unwrap());
    }

    fn close(&mut self) {
        if let Some(log) = self.log.take() {
            self.runtime.block_on(log.store.close());
            log.thread.join().unwrap();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.close();
    }
}

/// Name of the file beside the segments.
const WATERMARK: &str = "watermark";

/// Every file of a log by name: the segments, and last the watermark.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| !path.ends_with("lock"))
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap()))
        .collect()
}

/// The newest segment.
fn newest(files: &BTreeMap<String, Vec<u8>>) -> (&String, &Vec<u8>) {
    files.iter().rfind(|(name, _)| *name != WATERMARK).unwrap()
}

fn refused(files: &BTreeMap<String, Vec<u8>>) -> String {
    let folder = lay_out(files);
    let error = recover(folder.path(), owner()).unwrap_err();
    assert!(matches!(error, RaftError::Rot { .. }), "{error}");
    assert_eq!(self::files(folder.path()), *files, "what is refused stays as it was");
    error.to_string()
}

fn lay_out(files: &BTreeMap<String, Vec<u8>>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

fn indexes(content: &LogContent) -> Vec<(u64, u64)> {
    content.entries.iter().map(|entry| (entry.log_id.leader_id.term, entry.log_id.index)).collect()
}

#[test]
fn what_was_acknowledged_reads_back_over_many_segments() {
    let folder = tempfile::tempdir().unwrap();
    let mut session = Session::open(folder.path());
    session.vote(1);
    for index in 0..40 {
        session.append(vec![entry(1, index, 300)]);
    }
    session.vote(7);
    session.run(async |log| {
        log.save_committed(Some(id(1, 30))).await.unwrap();
        log.truncate_after(Some(id(1, 35))).await.unwrap();
    });
    session.append(vec![entry(7, 36, 10), entry(7, 37, 10)]);
    drop(session);

    assert!(files(folder.path()).len() > 3, "small segments were filled");
    let content = recover(folder.path(), owner()).unwrap().content;
    let expected: Vec<_> = (0..36).map(|index| (1, index)).chain([(7, 36), (7, 37)]).collect();
    assert_eq!(indexes(&content), expected);
    assert_eq!(content.vote.unwrap().leader_id.term, 7);
    assert_eq!(content.committed, Some(id(1, 30)));
}

#[test]
fn everything_can_be_truncated_even_the_first_entry() {
    let folder = tempfile::tempdir().unwrap();
    let mut session = Session::open(folder.path());
    // An id of zeros encodes to nothing; it must not be taken for no id.
    let zero = LogId { leader_id: LeaderId { term: 0, node_id: 0 }, index: 0 };
    session.append(vec![Entry { log_id: zero, payload: EntryPayload::Blank }, entry(1, 1, 1)]);
    session.run(async |log| log.truncate_after(Some(zero)).await.unwrap());
    session.vote(1);
    session.close();
    assert_eq!(indexes(&recover(folder.path(), owner()).unwrap().content), [(0, 0)]);

    let mut session = Session::open(folder.path());
    session.run(async |log| log.truncate_after(None).await.unwrap());
    session.vote(2);
    drop(session);
    assert_eq!(indexes(&recover(folder.path(), owner()).unwrap().content), []);
}

#[test]
fn purged_segments_go_and_the_vote_stays() {
    let folder = tempfile::tempdir().unwrap();
    let mut session = Session::open(folder.path());
    session.vote(5);
    for index in 0..60 {
        session.append(vec![entry(5, index, 500)]);
    }
    let before = files(folder.path()).len();
    session.run(async |log| log.purge(id(5, 50)).await.unwrap());
    session.append(vec![entry(5, 60, 1)]);
    drop(session);

    assert!(files(folder.path()).len() + 3 < before, "purged segments are removed");
    let content = recover(folder.path(), owner()).unwrap().content;
    assert_eq!(content.purged, Some(id(5, 50)));
    assert_eq!(indexes(&content), (51..=60).map(|index| (5, index)).collect::<Vec<_>>());
    assert_eq!(content.vote.unwrap().leader_id.term, 5);

    // A purge past the end, as after a snapshot was taken over, empties the log, and it goes on after it.
    let mut session = Session::open(folder.path());
    session.run(async |log| log.purge(id(6, 100)).await.unwrap());
    session.append(vec![entry(6, 101, 1)]);
    drop(session);
    let content = recover(folder.path(), owner()).unwrap().content;
    assert_eq!((content.purged, indexes(&content)), (Some(id(6, 100)), vec![(6, 101)]));
}

/// A short life of a log, with the state that was acknowledged after each step and the files as they were then.
fn short_life() -> Vec<(LogContent, BTreeMap<String, Vec<u8>>)> {
    let folder = tempfile::tempdir().unwrap();
    let mut session = Session::open(folder.path());
    let mut steps = Vec::new();
    let mut step = |session: &mut Session, act: &dyn Fn(&mut Session)| {
        act(session);
        let content = session.run(async |log| log.content());
        steps.push((content, files(folder.path())));
    };
    step(&mut session, &|s| s.vote(1));
    step(&mut session, &|s| s.append(vec![entry(1, 0, 5), entry(1, 1, 40)]));
    step(&mut session, &|s| s.append((2..6).map(|index| entry(1, index, 700)).collect()));
    step(&mut session, &|s| s.vote(2));
    step(&mut session, &|s| {
        s.run(async |log| log.truncate_after(Some(id(1, 3))).await.unwrap());
        s.append(vec![entry(2, 4, 900), entry(2, 5, 900)]);
    });
    step(&mut session, &|s| s.append((6..8).map(|index| entry(2, index, 1200)).collect()));
    step(&mut session, &|s| s.append(vec![entry(2, 8, 100)]));
    steps
}

#[test]
fn every_prefix_of_what_was_written_recovers_to_what_was_acknowledged_and_twice_the_same() {
    let steps = short_life();
    let mut cuts = 0;
    for pair in steps.windows(2) {
        let ((old, old_files), (new, new_files)) = (&pair[0], &pair[1]);
        // The files that changed in this step; a crash leaves any prefix of the new bytes of the last of them.
        for (name, bytes) in new_files {
            let known = old_files.get(name).map_or(0, |old| shared(old, bytes));
            if known == bytes.len() || name == WATERMARK {
                continue;
            }
            // The watermark follows a flush, so it knows of the step before or, after a power cut, of less.
            let mark = [&steps[0].1, old_files][cuts % 2][WATERMARK].clone();
            for cut in (known..bytes.len()).step_by(29).chain([bytes.len()]) {
                let mut crashed: BTreeMap<_, _> = new_files
                    .iter()
                    .filter(|(other, _)| *other < name)
                    .map(|(n, b)| (n.clone(), b.clone()))
                    .collect();
                let mut torn = old_files.get(name).cloned().unwrap_or_default();
                torn.resize(torn.len().max(cut), 0);
                torn[known..cut].copy_from_slice(&bytes[known..cut]);
                crashed.insert(name.clone(), torn);
                crashed.insert(WATERMARK.to_owned(), mark.clone());

                let folder = lay_out(&crashed);
                let first = recover(folder.path(), owner())
                    .unwrap_or_else(|error| panic!("{name} cut at {cut}: {error}"));
                assert_contains(&first.content, old, new, &format!("{name} cut at {cut}"));
                let second = recover(folder.path(), owner()).unwrap();
                assert_eq!(first.content, second.content, "{name} cut at {cut}: recovered twice");
                assert_eq!(second.cut_bytes, 0, "{name} cut at {cut}: nothing is left to cut");
                cuts += 1;
            }
        }
    }
    assert!(cuts > 150, "{cuts} crashes");
}

/// Bytes at the start that are the same.
fn shared(old: &[u8], new: &[u8]) -> usize {
    old.iter().zip(new).take_while(|(old, new)| old == new).count()
}

/// Whether `found` lies between what was acknowledged before a step and after it.
fn assert_contains(found: &LogContent, old: &LogContent, new: &LogContent, at: &str) {
    let known: Vec<_> = old.entries.iter().chain(&new.entries).collect();
    assert!(found.entries.iter().all(|entry| known.contains(&entry)), "{at}: an entry nobody wrote");
    let kept = old.entries.iter().filter(|entry| new.entries.contains(entry));
    for entry in kept {
        assert!(found.entries.contains(entry), "{at}: entry {} was acknowledged", entry.log_id);
    }
    assert!(found.vote == old.vote || found.vote == new.vote, "{at}: vote");
}

#[test]
fn a_batch_torn_anywhere_is_cut_though_its_later_records_read() {
    let steps = short_life();
    let (old, old_files) = &steps[1];
    let (_, new_files) = &steps[2];
    let (name, bytes) = newest(new_files);
    let mark = (WATERMARK.to_owned(), old_files[WATERMARK].clone());
    let known = shared(&old_files[name], bytes);
    // The disk wrote the end of the batch and not its beginning.
    let mut torn = bytes.clone();
    torn[known..known + 512].fill(0);
    let folder = lay_out(&BTreeMap::from([(name.clone(), torn), mark]));
    let recovered = recover(folder.path(), owner()).unwrap();
    assert_eq!(recovered.content.entries, old.entries);
    assert!(recovered.cut_bytes > 0);
}

#[test]
fn any_sectors_of_a_torn_batch_recover_to_what_was_acknowledged() {
    let steps = short_life();
    let (old, old_files) = &steps[1];
    let (new, new_files) = &steps[2];
    let (name, bytes) = newest(new_files);
    let mark = (WATERMARK.to_owned(), old_files[WATERMARK].clone());
    let known = shared(&old_files[name], bytes);
    let mut random = fastrand::Rng::with_seed(20_261_122);
    for round in 0..64 {
        // Sectors that reached the disk and sectors that did not, in any combination.
        let mut torn = bytes.clone();
        for sector in (known - known % SECTOR_BYTES..bytes.len()).step_by(SECTOR_BYTES) {
            if random.bool() {
                torn[sector.max(known)..(sector + SECTOR_BYTES).min(bytes.len())].fill(0);
            }
        }
        let folder = lay_out(&BTreeMap::from([(name.clone(), torn), mark.clone()]));
        let first = recover(folder.path(), owner()).unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_contains(&first.content, old, new, &format!("round {round}"));
        assert_eq!(recover(folder.path(), owner()).unwrap().content, first.content);
    }
}

#[test]
fn an_old_segment_is_closed_though_it_is_not_full() {
    let folder = tempfile::tempdir().unwrap();
    let mut session = Session::open_with(folder.path(), Limits { segment_age: Duration::ZERO, ..small() });
    session.append(vec![entry(1, 0, 10)]);
    session.run(async |log| log.tick().await);
    session.vote(2);
    drop(session);
    assert_eq!(files(folder.path()).len(), 3, "two segments and the watermark");
    assert_eq!(recover(folder.path(), owner()).unwrap().content.vote.unwrap().leader_id.term, 2);
}

#[test]
fn a_disk_that_errs_ends_the_process_with_the_reason() {
    if let Some(folder) = std::env::var_os(CHILD) {
        // In the child: the folder vanishes under the log, and the next segment cannot be made.
        let folder = Path::new(&folder);
        let mut session = Session::open(folder);
        session.append(vec![entry(1, 0, 2000)]);
        fs::remove_dir_all(folder).unwrap();
        session.append(vec![entry(1, 1, 3000)]);
        println!("acknowledged what cannot be durable");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "wal::tests::a_disk_that_errs_ends_the_process_with_the_reason", "--nocapture"])
        .env(CHILD, folder.path().join("wal"))
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.signal(), Some(SIGABRT), "{out}{err}");
    assert!(err.contains("could not begin a segment in") && err.contains("Check the disk"), "{err}");
    assert!(!out.contains("acknowledged"), "{out}");
}

#[test]
fn a_bit_flipped_in_what_had_been_durable_is_refused_by_name() {
    let steps = short_life();
    let (content, files) = steps.last().unwrap();
    let mut refused = 0;
    for (name, bytes) in files {
        // Of the watermark only one slot: the other is far away, and zeros lie between.
        let end = if name == WATERMARK { watermark::SLOT_BYTES } else { bytes.len() };
        for at in (0..end).step_by(11) {
            let mut rotten = files.clone();
            rotten.get_mut(name).unwrap()[at] ^= 1 << (at % 8);
            let folder = lay_out(&rotten);
            match recover(folder.path(), owner()) {
                Err(RaftError::Rot { path, .. }) => {
                    assert!(
                        path.ends_with(name) || at < SEGMENT_HEADER_BYTES,
                        "{name} at {at} named {}",
                        path.display()
                    );
                    refused += 1;
                }
                Err(RaftError::ForeignLog { .. }) => panic!("the header's sum is checked first"),
                Err(error) => panic!("{name} at {at}: {error}"),
                // Bits that nothing was written to, and one of the two slots of the watermark.
                Ok(found) => assert_eq!(found.content, *content, "{name} at {at} went unnoticed"),
            }
        }
    }
    assert!(refused > 300, "{refused} flips refused");
}

#[test]
fn rot_in_the_very_last_batch_is_refused_and_nothing_is_cut() {
    let steps = short_life();
    let (_, files) = steps.last().unwrap();
    let (_, before) = &steps[steps.len() - 2];
    let (name, bytes) = newest(files);
    let last = shared(&before[name], bytes);
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut rotten = files.clone();
        change(rotten.get_mut(name).unwrap());
        rotten
    };
    assert!(refused(&changed(&|bytes| bytes[last + 20] ^= 4)).contains("had been durable"));
    // A sector that reads as zeros, all of the file that does, and a file that lost its end.
    assert!(refused(&changed(&|bytes| bytes[last..].fill(0))).contains("had been durable"));
    assert!(refused(&changed(&|bytes| bytes.fill(0))).contains("leave it stopped"));
    assert!(refused(&changed(&|bytes| bytes.truncate(last))).contains("had been durable"));
    let mut lost = files.clone();
    lost.remove(name);
    assert!(refused(&lost).contains("is the last that is there"));
    let only_mark = BTreeMap::from([(WATERMARK.to_owned(), files[WATERMARK].clone())]);
    assert!(refused(&only_mark).contains("segment 0 is the last"));
}

/// The limit of what can be told, and what it costs.
#[test]
fn a_last_batch_that_the_watermark_does_not_know_passes_for_a_torn_one() {
    let steps = short_life();
    let (_, files) = steps.last().unwrap();
    let (old, before) = &steps[steps.len() - 2];
    let (name, bytes) = newest(files);
    let mut rotten = files.clone();
    rotten.get_mut(name).unwrap()[shared(&before[name], bytes) + 20] ^= 4;
    // As after a power cut within the second that the watermark takes.
    rotten.insert(WATERMARK.to_owned(), before[WATERMARK].clone());
    let folder = lay_out(&rotten);
    let recovered = recover(folder.path(), owner()).unwrap();
    assert_eq!(recovered.content.entries, old.entries);
    assert!(recovered.cut_bytes > 0);
}

#[test]
fn a_watermark_that_is_gone_or_unreadable_is_refused_and_one_of_two_slots_is_enough() {
    let steps = short_life();
    let (content, files) = steps.last().unwrap();
    let mut without = files.clone();
    without.remove(WATERMARK);
    assert!(refused(&without).contains("the watermark of the log is gone"));
    let spoil = |slots: &[u64]| {
        let mut spoilt = files.clone();
        let bytes = spoilt.get_mut(WATERMARK).unwrap();
        for slot in slots {
            bytes[usize::try_from(*slot).unwrap()..][..512].fill(0xEE);
        }
        spoilt
    };
    assert!(refused(&spoil(&SLOTS)).contains("neither slot"));
    for slot in SLOTS {
        let folder = lay_out(&spoil(&[slot]));
        assert_eq!(recover(folder.path(), owner()).unwrap().content, *content);
    }
    let mut cut = files.clone();
    cut.get_mut(WATERMARK).unwrap().clear();
    assert!(refused(&cut).contains("neither slot"));
}

#[test]
fn a_log_from_before_there_were_watermarks_is_read_and_gets_one() {
    let steps = short_life();
    let (content, files) = steps.last().unwrap();
    let mut before = files.clone();
    before.remove(WATERMARK);
    for bytes in before.values_mut() {
        let header = SegmentHeader::decode(bytes).unwrap();
        let header = SegmentHeader { version: FORMAT_VERSION_UNMARKED, ..header };
        bytes[..SEGMENT_HEADER_BYTES].copy_from_slice(&header.encode());
    }
    let folder = lay_out(&before);
    let mut session = Session::open(folder.path());
    assert_eq!(session.run(async |log| log.content()), *content);
    session.vote(9);
    drop(session);
    let mark = watermark::read(folder.path()).unwrap().unwrap();
    assert_eq!(mark.segment, u64::try_from(before.len()).unwrap() + 1);
    assert_eq!(recover(folder.path(), owner()).unwrap().content.vote.unwrap().leader_id.term, 9);
}

#[test]
fn a_note_never_overwrites_the_slot_that_was_flushed_last() {
    let folder = tempfile::tempdir().unwrap();
    let read = || fs::read(watermark::path_in(folder.path())).unwrap();
    let slots = |bytes: &[u8]| SLOTS.map(|at| Mark::decode(&bytes[usize::try_from(at).unwrap()..]));
    let mark = |bytes| Mark { segment: 1, bytes, salt: 7 };
    let mut file = Watermark::open(folder.path(), None).unwrap();
    assert_eq!(slots(&read()), [Some(Mark::default()), None]);
    for bytes in [64, 72, 80] {
        file.note(mark(bytes)).unwrap();
    }
    assert_eq!(slots(&read()), [Some(Mark::default()), Some(mark(80))]);
    assert!(file.make_durable().unwrap() && !file.make_durable().unwrap(), "once for each note");
    file.note(mark(88)).unwrap();
    assert_eq!(slots(&read()), [Some(mark(88)), Some(mark(80))]);
    // A killed process leaves both; the one that is further counts, and stays.
    drop(file);
    let found = watermark::read(folder.path()).unwrap();
    assert_eq!(found, Some(mark(88)));
    Watermark::open(folder.path(), found).unwrap().note(mark(96)).unwrap();
    assert_eq!(slots(&read()), [Some(mark(88)), Some(mark(96))]);
}

#[test]
fn a_missing_or_foreign_segment_is_refused() {
    let steps = short_life();
    let (_, files) = steps.last().unwrap();
    assert!(files.len() >= 3, "the life fills three segments");
    let middle = files.keys().nth(1).unwrap();
    let mut lost = files.clone();
    lost.remove(middle);
    let folder = lay_out(&lost);
    assert!(matches!(recover(folder.path(), owner()), Err(RaftError::Rot { .. })));

    let mut short = files.clone();
    let bytes = short.get_mut(middle).unwrap();
    bytes.truncate(bytes.len() - 8);
    let folder = lay_out(&short);
    assert!(
        matches!(recover(folder.path(), owner()), Err(RaftError::Rot { .. })),
        "a closed segment lost its end"
    );

    let folder = lay_out(files);
    let other = Owner { member: MEMBER + 1, ..owner() };
    assert!(matches!(recover(folder.path(), other), Err(RaftError::ForeignLog { member: MEMBER, .. })));
}

#[test]
fn a_log_in_use_is_not_opened_twice() {
    let folder = tempfile::tempdir().unwrap();
    let session = Session::open(folder.path());
    assert!(matches!(
        LogStore::open(folder.path(), MEMBER, "cluster", small()),
        Err(RaftError::InUse { .. })
    ));
    drop(session);
    drop(Session::open(folder.path()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn records_read_back_and_any_flipped_bit_is_seen(
        payload in proptest::collection::vec(any::<u8>(), 0..200),
        salt: u64,
        batch in 1_u32..,
        last_of_batch: bool,
        flip: prop::sample::Index,
    ) {
        let record = Record { kind: Kind::Entry, batch, last_of_batch, payload: &payload };
        let mut bytes = Vec::new();
        super::record::encode(&mut bytes, salt, &record);
        prop_assert_eq!(bytes.len(), record.bytes());
        prop_assert_eq!(Record::decode(&bytes, salt), Some(record));
        prop_assert_eq!(Record::decode(&bytes, salt ^ 1), None);
        prop_assert_eq!(Record::decode(&bytes[..RECORD_HEADER_BYTES + payload.len() - 1], salt), None);
        let bit = flip.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(Record::decode(&bytes, salt), None);
    }

    #[test]
    fn segment_headers_read_back_and_any_flipped_bit_is_seen(
        version in 1_u16..=2, number: u64, salt: u64, previous_salt: u64, previous_bytes: u64, member: u64,
        group_sum: u32, bit in 0..SEGMENT_HEADER_BYTES * 8,
    ) {
        let header = SegmentHeader { version, number, salt, previous_salt, previous_bytes, member, group_sum };
        let mut bytes = header.encode();
        prop_assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(SegmentHeader::decode(&bytes).is_err());
    }

    #[test]
    fn watermarks_read_back_and_any_flipped_bit_is_seen(
        segment: u64, bytes: u64, salt: u64, bit in 0..super::watermark::SLOT_BYTES * 8,
    ) {
        let mark = Mark { segment, bytes, salt };
        let mut slot = mark.encode();
        prop_assert_eq!(Mark::decode(&slot), Some(mark));
        slot[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(Mark::decode(&slot), None);
    }
}
