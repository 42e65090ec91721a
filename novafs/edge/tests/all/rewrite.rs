//! Writing to what is there already: what is read for it, in which order, and who is refused.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future::yield_now;
use nova_device::mem::{HostOptions, MemShard, World};
use nova_device::sync::join_all;
use nova_device::{PeerError, Shard};
use nova_units::{BlockId, Generation, MIB, NodeId, TaskClass, UnitIndex};
use novafs_edge::{
    Edge, EdgeError, EdgeOptions, Keyring, ReadRequest, TrimRequest, WRITERS_MAX, WriteRequest, WriterOpened,
};
use novafs_format::LogEntry;
use novafs_format::seal::DomainKey;
use novafs_replica::Answer;

use crate::fake_hosts::{FakeHosts, GROUP, Seen, map};

type FakeEdge = Rc<Edge<MemShard, FakeHosts>>;

/// Runs `test` over an edge and its hosts.
fn run<F: Future<Output = ()> + 'static>(
    seed: u64,
    test: impl FnOnce(FakeEdge, Rc<Seen>, MemShard) -> F + 'static,
) {
    let world = World::new(seed);
    let shard = world.add_host(HostOptions { pool_bytes: 32 << 20, ..HostOptions::default() });
    let hosts = FakeHosts { shard: shard.clone(), seen: Rc::new(Seen::default()) };
    let options = EdgeOptions { deadline: Duration::from_secs(3), ..EdgeOptions::default() };
    let keys = Keyring::of(DomainKey::new(1, 1, [7; 32]));
    let edge = Edge::new(shard.clone(), hosts.clone(), keys, options);
    edge.configure(map(1, 1));
    world.run(&shard, test(edge, Rc::clone(&hosts.seen), shard.clone()));
}

/// Begins all of these in order, while the hosts do not answer; then lets the hosts answer and waits for all.
async fn begin_in_order<F: Future<Output = ()> + 'static>(seen: &Seen, shard: &MemShard, all: Vec<F>) {
    seen.held.set(true);
    let ended = Rc::new(Cell::new(false));
    let end = Rc::clone(&ended);
    shard.spawn(TaskClass::Client, async move {
        join_all(all).await;
        end.set(true);
    });
    for _ in 0..50 {
        yield_now().await;
    }
    assert!(!ended.get());
    seen.held.set(false);
    seen.released.notify_all();
    while !ended.get() {
        yield_now().await;
    }
}

pub(crate) fn write(
    writer: &WriterOpened,
    block: u64,
    offset: u64,
    block_bytes: u64,
    plain: impl Into<Vec<u8>>,
) -> WriteRequest {
    WriteRequest {
        writer: writer.writer,
        group: GROUP,
        block: BlockId(block),
        generation: Generation(1),
        unit_log2: 16,
        offset,
        block_bytes,
        source: Rc::new(plain.into()),
    }
}

fn trim(writer: &WriterOpened, block: u64, from_bytes: u64) -> TrimRequest {
    TrimRequest {
        writer: writer.writer,
        group: GROUP,
        block: BlockId(block),
        generation: Generation(1),
        unit_log2: 16,
        from_bytes,
    }
}

async fn read(edge: &FakeEdge, block: u64, block_bytes: u64, sparse: bool) -> Result<Vec<u8>, EdgeError> {
    let request = ReadRequest {
        group: GROUP,
        block: BlockId(block),
        key: (1, 1),
        unit_log2: 16,
        block_bytes,
        offset: 0,
        bytes: block_bytes,
        sparse,
    };
    let mut out = vec![0xEE; block_bytes as usize];
    edge.read(&request, |at, plain| out[at as usize..at as usize + plain.len()].copy_from_slice(plain))
        .await?;
    Ok(out)
}

#[test]
fn whole_units_and_what_follows_the_end_are_never_read() {
    run(1, async |edge, _, _| {
        let writer = edge.open_writer(0, 0).await.unwrap();
        edge.write(write(&writer, 1, 0, 0, vec![1; 70_000])).await.unwrap();
        edge.write(write(&writer, 1, 0, 70_000, vec![2; 65_536])).await.unwrap();
        edge.write(write(&writer, 1, 65_536, 70_000, vec![3; 4464])).await.unwrap();
        edge.write(write(&writer, 1, 200_000, 70_000, vec![4; 10])).await.unwrap();
        assert_eq!(edge.counters().units_merged, 0);
        edge.write(write(&writer, 1, 10, 200_010, vec![5; 1])).await.unwrap();
        assert_eq!(edge.counters().units_merged, 1);
        let mut expected = [vec![2; 65_536], vec![3; 4464], vec![0; 130_000], vec![4; 10]].concat();
        expected[10] = 5;
        assert!(read(&edge, 1, 200_010, true).await.unwrap() == expected);
    });
}

#[test]
fn an_edge_refuses_more_writers_than_its_limit_until_one_is_closed() {
    run(7, async |edge, _, _| {
        let first = edge.open_writer(0, 0).await.unwrap();
        for _ in 1..WRITERS_MAX {
            edge.open_writer(0, 0).await.unwrap();
        }
        let refused = edge.open_writer(0, 0).await.unwrap_err();
        assert_eq!(refused, EdgeError::TooManyWriters { open: WRITERS_MAX });
        edge.close_writer(first.writer);
        edge.open_writer(0, 0).await.unwrap();
    });
}

#[test]
fn a_mebibyte_that_begins_within_a_unit_goes_in_two_messages() {
    run(2, async |edge, seen, _| {
        let writer = edge.open_writer(0, 0).await.unwrap();
        edge.write(write(&writer, 1, 0, 0, vec![1; MIB as usize])).await.unwrap();
        edge.write(write(&writer, 1, MIB, MIB, vec![1; MIB as usize])).await.unwrap();
        edge.write(write(&writer, 1, 100, 2 * MIB, vec![2; MIB as usize])).await.unwrap();
        assert_eq!(seen.writes.borrow().len(), 4);
        let back = read(&edge, 1, 2 * MIB, false).await.unwrap();
        let written = 100..100 + MIB as usize;
        assert!(back.iter().enumerate().all(|(at, byte)| *byte == if written.contains(&at) { 2 } else { 1 }));
    });
}

#[test]
fn writes_to_one_unit_take_effect_in_the_order_in_which_they_came() {
    run(3, async |edge, seen, shard| {
        let writer = edge.open_writer(0, 0).await.unwrap();
        let ended = Rc::new(RefCell::new(Vec::new()));
        let writes = (0..6_u8).map(|at| {
            // Each covers a part of the one before.
            let request = write(&writer, 1, u64::from(at) * 50, u64::from(at) * 50, vec![at + 1; 100]);
            let (edge, ended) = (Rc::clone(&edge), Rc::clone(&ended));
            async move {
                edge.write(request).await.unwrap();
                ended.borrow_mut().push(at);
            }
        });
        begin_in_order(&seen, &shard, writes.collect()).await;
        assert_eq!(*ended.borrow(), [0, 1, 2, 3, 4, 5]);
        let back = read(&edge, 1, 350, true).await.unwrap();
        let expected: Vec<u8> = (0..350_u32).map(|at| (at / 50 + 1).min(6) as u8).collect();
        assert!(back == expected);
    });
}

#[test]
fn a_fenced_writer_takes_nobody_with_it() {
    run(4, async |edge, seen, shard| {
        let writer = edge.open_writer(0, 0).await.unwrap();
        edge.fence(GROUP, BlockId(2), Generation(2)).await.unwrap();
        // The first message is on its way; the next three writes gather behind it.
        seen.held.set(true);
        let ended = Rc::new(RefCell::new(Vec::new()));
        for block in [9, 1, 2, 3] {
            let (edge, ended) = (Rc::clone(&edge), Rc::clone(&ended));
            let request = write(&writer, block, 0, 0, vec![block as u8; 100]);
            shard.spawn(TaskClass::Client, async move {
                let outcome = edge.write(request).await;
                ended.borrow_mut().push((block, outcome));
            });
        }
        for _ in 0..50 {
            yield_now().await;
        }
        seen.held.set(false);
        seen.released.notify_all();
        while ended.borrow().len() < 4 {
            yield_now().await;
        }
        ended.borrow_mut().sort_by_key(|(block, _)| *block);
        let fenced = Err(EdgeError::Fenced { block: BlockId(2), fence: Generation(2) });
        assert_eq!(*ended.borrow(), [(1, Ok(())), (2, fenced), (3, Ok(())), (9, Ok(()))]);
        let most = seen.writes.borrow().iter().map(|(entry, _)| entry.units().len()).max();
        assert_eq!(most, Some(3), "they had gathered");
    });
}

#[test]
fn two_writers_of_one_block_never_share_a_message() {
    run(5, async |edge, seen, shard| {
        let (one, other) = (edge.open_writer(0, 0).await.unwrap(), edge.open_writer(0, 0).await.unwrap());
        let first = write(&one, 9, 0, 0, vec![1; 10]);
        let second = WriteRequest { generation: Generation(2), ..write(&other, 1, 0, 0, vec![2; 10]) };
        let requests = [first, write(&one, 1, 0, 0, vec![1; 10]), second];
        let writes = requests.into_iter().map(|request| {
            let edge = Rc::clone(&edge);
            async move { edge.write(request).await.unwrap() }
        });
        begin_in_order(&seen, &shard, writes.collect()).await;
        assert_eq!(seen.writes.borrow().len(), 3);
    });
}

#[test]
fn after_a_cut_that_nobody_answered_nothing_is_written_until_one_is_answered() {
    run(6, async |edge, seen, _| {
        let writer = edge.open_writer(0, 0).await.unwrap();
        edge.write(write(&writer, 1, 0, 0, vec![1; 200_000])).await.unwrap();
        seen.refuse.replace(vec![Err(PeerError::TimedOut); 1000]);
        let cut = edge.trim(trim(&writer, 1, 131_072)).await;
        assert!(matches!(cut, Err(EdgeError::Unavailable { .. })), "{cut:?}");
        seen.refuse.take();
        let refused = edge.write(write(&writer, 1, 140_000, 131_072, vec![2; 10])).await;
        assert_eq!(refused, Err(EdgeError::Uncut { block: BlockId(1) }));
        edge.trim(trim(&writer, 1, 131_072)).await.unwrap();
        edge.write(write(&writer, 1, 140_000, 131_072, vec![2; 10])).await.unwrap();
        let expected = [vec![1; 131_072], vec![0; 8928], vec![2; 10]].concat();
        assert!(read(&edge, 1, 140_010, true).await.unwrap() == expected);
    });
}

#[test]
fn a_cut_waits_for_writes_under_way_and_later_ones_wait_for_it() {
    run(7, async |edge, seen, shard| {
        let writer = edge.open_writer(0, 0).await.unwrap();
        let ended = Rc::new(RefCell::new(Vec::new()));
        let steps = (0..3).map(|step| {
            let (edge, ended) = (Rc::clone(&edge), Rc::clone(&ended));
            async move {
                match step {
                    0 => edge.write(write(&writer, 1, 0, 0, vec![1; 200_000])).await.unwrap(),
                    1 => edge.trim(trim(&writer, 1, 70_000)).await.unwrap(),
                    _ => edge.write(write(&writer, 1, 100_000, 70_000, vec![2; 50])).await.unwrap(),
                }
                ended.borrow_mut().push(step);
            }
        });
        begin_in_order(&seen, &shard, steps.collect()).await;
        assert_eq!(*ended.borrow(), [0, 1, 2]);
        let expected = [vec![1; 70_000], vec![0; 30_000], vec![2; 50]].concat();
        assert!(read(&edge, 1, 100_050, true).await.unwrap() == expected);
        let cuts =
            seen.writes.borrow().iter().filter(|(entry, _)| matches!(entry, LogEntry::Trim { .. })).count();
        assert_eq!(cuts, 1);
    });
}

#[test]
fn holes_are_zeros_only_in_a_sparse_block_and_only_when_the_answer_is_whole() {
    run(8, async |edge, seen, _| {
        let writer = edge.open_writer(0, 0).await.unwrap();
        edge.write(write(&writer, 1, 131_072, 0, vec![1; 100])).await.unwrap();
        let missing = Err(EdgeError::Missing { block: BlockId(1), unit: UnitIndex(0) });
        assert_eq!(read(&edge, 1, 131_172, false).await, missing);
        let expected = [vec![0; 131_072], vec![1; 100]].concat();
        assert!(read(&edge, 1, 131_172, true).await.unwrap() == expected);
        assert!(read(&edge, 1, 131_082, true).await.unwrap() == expected[..131_082], "a longer unit is cut");
        // A unit of another place than was asked for is not passed over.
        let (versioned, body) = seen.stored.borrow()[&(BlockId(1), UnitIndex(2))].clone();
        seen.stored.borrow_mut().insert((BlockId(1), UnitIndex(0)), (versioned, body));
        let wrong = read(&edge, 1, 131_172, true).await;
        assert!(matches!(wrong, Err(EdgeError::Corrupt { .. })), "{wrong:?}");
    });
}

#[test]
fn a_block_that_was_let_go_and_taken_up_again_has_new_counters() {
    run(9, async |edge, seen, shard| {
        let writer = edge.open_writer(0, 0).await.unwrap();
        edge.write(write(&writer, 1, 0, 0, vec![1; 10])).await.unwrap();
        edge.close_block(writer.writer, BlockId(1), Generation(1), 10).unwrap();
        edge.write(write(&writer, 1, 0, 10, vec![2; 10])).await.unwrap();
        edge.release_block(writer.writer, BlockId(1), Generation(1)).await.unwrap();
        let gone = edge.release_block(writer.writer, BlockId(1), Generation(1)).await;
        assert_eq!(gone, Err(EdgeError::UnknownWriter));
        seen.held.set(true);
        let under_way = Rc::clone(&edge);
        shard.spawn(TaskClass::Client, async move {
            under_way.write(write(&writer, 1, 0, 10, vec![3; 10])).await.unwrap();
        });
        for _ in 0..50 {
            yield_now().await;
        }
        let early = edge.close_block(writer.writer, BlockId(1), Generation(1), 10);
        assert!(matches!(early, Err(EdgeError::Invalid(_))), "{early:?}");
        seen.held.set(false);
        seen.released.notify_all();
        while seen.writes.borrow().len() < 3 {
            yield_now().await;
        }
        let counters: Vec<_> =
            seen.writes.borrow().iter().map(|(entry, _)| entry.units()[0].counter).collect();
        assert_eq!(counters, [1, 2, 3]);
    });
}

#[test]
fn a_member_that_cannot_be_believed_is_passed_over_when_a_unit_is_merged() {
    run(10, async |edge, seen, _| {
        let writer = edge.open_writer(0, 0).await.unwrap();
        edge.write(write(&writer, 1, 0, 0, vec![1; 60_000])).await.unwrap();
        seen.rotten.replace(vec![NodeId(1), NodeId(2)]);
        for at in 0..8 {
            edge.write(write(&writer, 1, at * 7, 60_000, vec![2; 3])).await.unwrap();
        }
        seen.rotten.replace(vec![NodeId(1), NodeId(2), NodeId(3)]);
        let lost = edge.write(write(&writer, 1, 9, 60_000, vec![3; 3])).await;
        assert_eq!(lost, Err(EdgeError::Corrupt { block: BlockId(1), unit: UnitIndex(0) }));
        seen.rotten.take();
        let back = read(&edge, 1, 60_000, false).await.unwrap();
        let expected = (0..60_000).map(|at| if at < 56 && at % 7 < 3 { 2 } else { 1 });
        assert!(back.into_iter().eq(expected), "a unit that could not be read was not replaced");
        seen.refuse.replace(vec![Ok(Answer::Full)]);
        let full = edge.write(write(&writer, 1, 0, 60_000, vec![4; 3])).await;
        assert_eq!(full, Err(EdgeError::Full { group: GROUP }));
    });
}
