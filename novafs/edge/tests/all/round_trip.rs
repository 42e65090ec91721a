//! What goes in comes out, whatever one host does.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use nova_device::mem::{HostOptions, MemShard, World};
use nova_device::{Clock, PeerError, Shard};
use nova_units::{BlockId, Epoch, Generation, MIB, NodeId, TaskClass, UnitIndex};
use novafs_edge::{Edge, EdgeError, EdgeOptions, Keyring, ReadRequest, WriteRequest, WriterOpened};
use novafs_format::seal::DomainKey;
use novafs_replica::Answer;

use crate::fake_hosts::{FakeHosts, GROUP, Seen, map};

struct Setup {
    world: World,
    shard: MemShard,
    hosts: FakeHosts,
    edge: Rc<Edge<MemShard, FakeHosts>>,
}

fn setup(seed: u64) -> Setup {
    let world = World::new(seed);
    let shard = world.add_host(HostOptions { pool_bytes: 32 << 20, ..HostOptions::default() });
    let hosts = FakeHosts { shard: shard.clone(), seen: Rc::new(Seen::default()) };
    let options = EdgeOptions { deadline: Duration::from_secs(3), ..EdgeOptions::default() };
    let edge = Edge::new(shard.clone(), hosts.clone(), Keyring::of(DomainKey::new(1, 1, [7; 32])), options);
    edge.configure(map(1, 1));
    Setup { world, shard, hosts, edge }
}

fn content(bytes: usize, seed: u64) -> Vec<u8> {
    (0..bytes as u64).map(|at| ((at ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

fn write(writer: &WriterOpened, block: u64, first_unit: u16, plain: Vec<u8>) -> WriteRequest {
    WriteRequest {
        writer: writer.writer,
        group: GROUP,
        block: BlockId(block),
        generation: Generation(1),
        unit_log2: 16,
        offset: u64::from(first_unit) << 16,
        block_bytes: 0,
        source: Rc::new(plain),
    }
}

fn read(writer: &WriterOpened, block: u64, block_bytes: u64, offset: u64, bytes: u64) -> ReadRequest {
    ReadRequest {
        group: GROUP,
        block: BlockId(block),
        key: writer.key,
        unit_log2: 16,
        block_bytes,
        offset,
        bytes,
        sparse: false,
    }
}

async fn read_all(edge: &Rc<Edge<MemShard, FakeHosts>>, request: ReadRequest) -> Result<Vec<u8>, EdgeError> {
    let mut out = vec![0; usize::try_from(request.bytes).unwrap()];
    edge.read(&request, |at, plain| {
        let at = usize::try_from(at).unwrap();
        out[at..at + plain.len()].copy_from_slice(plain);
    })
    .await?;
    Ok(out)
}

#[test]
fn a_block_comes_back_byte_for_byte_from_any_offset() {
    let Setup { world, shard, edge, .. } = setup(1);
    let edge = Rc::clone(&edge);
    world.run(&shard, async move {
        let writer = edge.open_writer(0, 0).await.unwrap();
        let plain = content(2 * MIB as usize + 777, 3);
        for (first, part) in (0u16..).step_by(16).zip(plain.chunks(MIB as usize)) {
            edge.write(write(&writer, 5, first, part.to_vec())).await.unwrap();
        }
        let bytes = plain.len() as u64;
        for (offset, count) in
            [(0, bytes), (1, 1), (65_535, 2), (MIB - 1, 70_000), (bytes - 1, 1), (100_000, 1_500_000)]
        {
            let part = read_all(&edge, read(&writer, 5, bytes, offset, count)).await.unwrap();
            assert!(part == plain[offset as usize..(offset + count) as usize], "{count} bytes from {offset}");
        }
        let summary = edge.close_block(writer.writer, BlockId(5), Generation(1), bytes).unwrap();
        assert_eq!(summary.units, 33);
    });
}

#[test]
fn who_does_not_answer_is_waited_for_no_longer_than_until_the_map_says_that_others_go_on() {
    let Setup { world, shard, hosts, edge } = setup(7);
    world.run(&shard.clone(), async move {
        let writer = edge.open_writer(0, 0).await.unwrap();
        for epoch in 1..3 {
            hosts.seen.hangs.set(Some(Epoch(epoch)));
            let (telling, clock) = (Rc::clone(&edge), shard.clone());
            shard.spawn(TaskClass::Client, async move {
                let clock = clock.clock();
                clock.sleep_until(clock.now() + Duration::from_millis(100)).await;
                telling.configure(map(epoch + 1, epoch + 1));
            });
            let begun = shard.clock().now();
            // First a write, then a read.
            match epoch {
                1 => edge.write(write(&writer, 5, 0, content(3000, 5))).await.unwrap(),
                _ => assert_eq!(
                    read_all(&edge, read(&writer, 5, 3000, 0, 3000)).await.unwrap(),
                    content(3000, 5)
                ),
            }
            let took = shard.clock().now() - begun;
            assert!(took < Duration::from_millis(200), "epoch {epoch}: {took:?}");
        }
        assert_eq!(hosts.seen.writes.borrow().len(), 1, "the one that hangs takes nothing here");
    });
}

#[test]
fn small_writes_that_wait_together_go_in_one_message() {
    let Setup { world, shard, hosts, edge } = setup(2);
    let outcomes = Rc::new(RefCell::new(Vec::new()));
    hosts.seen.held.set(true);
    let (edge, seen, tasks, wanted) = (edge, Rc::clone(&hosts.seen), shard.clone(), Rc::clone(&outcomes));
    world.run(&shard, async move {
        let writer = edge.open_writer(0, 0).await.unwrap();
        for block in 0..40 {
            let (edge, outcomes) = (Rc::clone(&edge), Rc::clone(&wanted));
            tasks.spawn(TaskClass::Client, async move {
                let outcome = edge.write(write(&writer, block, 0, content(3000, block))).await;
                outcomes.borrow_mut().push(outcome);
            });
        }
        for _ in 0..100 {
            futures_lite::future::yield_now().await;
        }
        seen.held.set(false);
        seen.released.notify_all();
        while wanted.borrow().len() < 40 {
            futures_lite::future::yield_now().await;
        }
        assert!(seen.writes.borrow().len() <= 3, "{} messages for 40 files", seen.writes.borrow().len());
        for block in 0..40 {
            assert!(
                read_all(&edge, read(&writer, block, 3000, 0, 3000)).await.unwrap() == content(3000, block)
            );
        }
    });
    assert!(outcomes.borrow().iter().all(Result::is_ok));
}

#[test]
fn a_retry_sends_identical_bytes_and_no_counter_is_used_twice() {
    let Setup { world, shard, hosts, edge } = setup(3);
    hosts.seen.refuse.replace(vec![
        Err(PeerError::Closed),
        Ok(Answer::StaleEpoch { epoch: nova_units::Epoch(2) }),
        Ok(Answer::Frozen { retry_after_ms: 10 }),
    ]);
    let seen = Rc::clone(&hosts.seen);
    world.run(&shard, async move {
        let writer = edge.open_writer(0, 0).await.unwrap();
        edge.write(write(&writer, 1, 0, content(100_000, 1))).await.unwrap();
        edge.write(write(&writer, 1, 0, content(100_000, 2))).await.unwrap();
        let writes = seen.writes.borrow();
        assert_eq!(writes.len(), 5, "three refusals, then one success each");
        assert!(writes[..4].iter().all(|write| *write == writes[0]), "a retry is the same message");
        let counters: BTreeSet<_> = [&writes[0], &writes[4]]
            .iter()
            .flat_map(|(entry, _)| entry.units().iter().map(|unit| unit.counter))
            .collect();
        assert_eq!(counters.len(), 4, "two units, sealed twice: four counters");
    });
}

#[test]
fn bytes_that_fail_their_sums_are_taken_from_another_member_and_never_given_out() {
    let Setup { world, shard, hosts, edge } = setup(4);
    let seen = Rc::clone(&hosts.seen);
    world.run(&shard, async move {
        let writer = edge.open_writer(0, 0).await.unwrap();
        edge.write(write(&writer, 1, 0, content(200_000, 1))).await.unwrap();
        seen.rotten.replace(vec![NodeId(1), NodeId(2)]);
        for _ in 0..20 {
            let back = read_all(&edge, read(&writer, 1, 200_000, 0, 200_000)).await.unwrap();
            assert!(back == content(200_000, 1));
        }
        assert!(edge.counters().bad_replies > 0, "some of the reads began at a rotten member");
        // Where one member has a bad copy the others are looked at too.
        seen.rotten.replace(vec![NodeId(1)]);
        for _ in 0..5 {
            read_all(&edge, read(&writer, 1, 200_000, 0, 200_000)).await.unwrap();
        }
        for _ in 0..100 {
            futures_lite::future::yield_now().await;
        }
        assert!(edge.counters().looks > 0);
        seen.rotten.replace(vec![NodeId(1), NodeId(2), NodeId(3)]);
        let lost = read_all(&edge, read(&writer, 1, 200_000, 0, 200_000)).await;
        assert_eq!(lost, Err(EdgeError::Corrupt { block: BlockId(1), unit: UnitIndex(0) }));
    });
}

#[test]
fn what_was_never_written_is_missing_and_not_zeros() {
    let Setup { world, shard, edge, .. } = setup(5);
    world.run(&shard, async move {
        let writer = edge.open_writer(0, 0).await.unwrap();
        edge.write(write(&writer, 1, 0, content(65_536, 1))).await.unwrap();
        let past = read_all(&edge, read(&writer, 1, 70_000, 0, 70_000)).await;
        assert_eq!(past, Err(EdgeError::Missing { block: BlockId(1), unit: UnitIndex(1) }));
        let close = edge.close_block(writer.writer, BlockId(1), Generation(1), 70_000);
        assert!(matches!(close, Err(EdgeError::Invalid(_))), "a block with a gap is not summed up");
    });
}

#[test]
fn a_group_that_stays_frozen_is_unavailable_after_the_deadline_and_says_why() {
    let Setup { world, shard, hosts, edge } = setup(6);
    hosts.seen.refuse.replace(vec![Ok(Answer::Frozen { retry_after_ms: 100 }); 1000]);
    world.run(&shard, async move {
        let writer = edge.open_writer(0, 0).await.unwrap();
        let error = edge.write(write(&writer, 1, 0, vec![1])).await.expect_err("frozen");
        let EdgeError::Unavailable { group: GROUP, waited, last } = error else { panic!("{error}") };
        assert!(waited >= Duration::from_secs(3) && waited < Duration::from_secs(4), "{waited:?}");
        assert_eq!(last, "too few members are in sync to write");
    });
}

#[test]
fn a_wrong_key_or_salt_opens_nothing() {
    let Setup { world, shard, hosts, edge } = setup(7);
    world.run(&shard, async move {
        let writer = edge.open_writer(0, 0).await.unwrap();
        edge.write(write(&writer, 1, 0, content(5000, 1))).await.unwrap();
        let mut request = read(&writer, 1, 5000, 0, 5000);
        for (versioned, _) in hosts.seen.stored.borrow_mut().values_mut() {
            versioned.sealed.salt[0] ^= 1;
        }
        assert!(matches!(read_all(&edge, request.clone()).await, Err(EdgeError::Corrupt { .. })));
        request.key = (1, 2);
        assert_eq!(read_all(&edge, request).await, Err(EdgeError::NoKey { domain: 1, version: 2 }));
    });
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let Setup { world, shard, edge, .. } = setup(8);
    world.run(&shard, async move {
        let writer = edge.open_writer(0, 0).await.unwrap();
        let bad = [
            write(&writer, 1, 0, Vec::new()),
            write(&writer, 1, 0, vec![0; MIB as usize + 1]),
            write(&writer, 1, 2047, vec![0; 65_537]),
            WriteRequest { offset: u64::MAX, ..write(&writer, 1, 0, vec![1]) },
            WriteRequest { block_bytes: (128 << 20) + 1, ..write(&writer, 1, 0, vec![1]) },
            WriteRequest { unit_log2: 17, ..write(&writer, 1, 0, vec![1]) },
            WriteRequest { unit_log2: 11, ..write(&writer, 1, 0, vec![1]) },
        ];
        for request in bad {
            assert!(matches!(edge.write(request.clone()).await, Err(EdgeError::Invalid(_))), "{request:?}");
        }
        let past = read_all(&edge, read(&writer, 1, 10, 5, 6)).await;
        assert!(matches!(past, Err(EdgeError::Invalid(_))));
        edge.close_writer(writer.writer);
        assert_eq!(edge.write(write(&writer, 1, 0, vec![1])).await, Err(EdgeError::UnknownWriter));
    });
}

#[test]
fn a_write_that_finds_no_buffer_ends_at_its_deadline() {
    let Setup { world, shard, edge, .. } = setup(21);
    let clock = shard.clock().clone();
    world.run(&shard.clone(), async move {
        let writer = edge.open_writer(0, 0).await.unwrap();
        let mut held = Vec::new();
        for bytes in [1 << 20, 64 << 10, 4 << 10] {
            while let Ok(buffer) = shard.pool().try_take(bytes) {
                held.push(buffer);
            }
        }
        let begun = clock.now();
        let refused = edge.write(write(&writer, 1, 0, content(100_000, 1))).await.unwrap_err();
        assert!(matches!(refused, EdgeError::Unavailable { .. }), "{refused}");
        assert!(refused.to_string().contains("no free buffers"), "{refused}");
        assert!(clock.now() - begun < Duration::from_secs(4));
        drop(held);
        edge.write(write(&writer, 1, 0, content(100_000, 1))).await.unwrap();
        let back = read_all(&edge, read(&writer, 1, 100_000, 0, 100_000)).await.unwrap();
        assert!(back == content(100_000, 1));
    });
}
