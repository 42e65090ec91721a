//! Reads that one member keeps waiting.

use std::rc::Rc;
use std::time::Duration;

use nova_device::mem::{HostOptions, MemShard, World};
use nova_device::{Clock, Shard};
use nova_units::{BlockId, NodeId};
use novafs_edge::{Edge, EdgeError, EdgeOptions, Keyring, ReadRequest};
use novafs_format::seal::DomainKey;

use crate::fake_hosts::{FakeHosts, GROUP, Seen, map};
use crate::rewrite::write;

const PLAIN: &[u8] = &[7; 6000];

/// Three hosts that hold one block, of which the first, which nothing is known of, is asked first.
fn setup(seed: u64, slow: &[(u64, Duration)]) -> (World, MemShard, Rc<Edge<MemShard, FakeHosts>>, Rc<Seen>) {
    let world = World::new(seed);
    let shard = world.add_host(HostOptions { pool_bytes: 32 << 20, ..HostOptions::default() });
    let hosts = FakeHosts { shard: shard.clone(), seen: Rc::new(Seen::default()) };
    let seen = Rc::clone(&hosts.seen);
    seen.slow.borrow_mut().extend(slow.iter().map(|(node, slow)| (NodeId(*node), *slow)));
    let keys = Keyring::of(DomainKey::new(1, 1, [7; 32]));
    let edge = Edge::new(shard.clone(), hosts, keys, EdgeOptions::default());
    edge.configure(map(1, 1));
    let writing = Rc::clone(&edge);
    world.run(&shard, async move {
        let opened = writing.open_writer(1, 0).await.unwrap();
        writing.write(write(&opened, 5, 0, 0, PLAIN)).await.unwrap();
    });
    (world, shard, edge, seen)
}

/// Reads the block; how long that took.
async fn read(edge: &Rc<Edge<MemShard, FakeHosts>>, shard: &MemShard) -> Result<Duration, EdgeError> {
    let request = ReadRequest {
        group: GROUP,
        block: BlockId(5),
        key: (1, 1),
        unit_log2: 16,
        block_bytes: PLAIN.len() as u64,
        offset: 0,
        bytes: PLAIN.len() as u64,
        sparse: false,
    };
    let begun = shard.clock().now();
    let mut plain = Vec::new();
    edge.read(&request, |_, bytes| plain = bytes.to_vec()).await?;
    assert_eq!(plain, PLAIN);
    Ok(shard.clock().now() - begun)
}

#[test]
fn a_slow_member_is_asked_beside_another_and_the_first_good_answer_counts() {
    let (world, shard, edge, _) = setup(2, &[(1, Duration::from_secs(4))]);
    let reading = Rc::clone(&edge);
    world.run(&shard.clone(), async move {
        for _ in 0..100 {
            let took = read(&reading, &shard).await.unwrap();
            assert!(took < Duration::from_millis(60), "{took:?}");
        }
    });
    let counters = edge.counters();
    assert!(counters.reads_hedged > 0 && counters.reads_hedged <= 16 + 5, "{counters:?}");
    assert_eq!(counters.hedges_won, counters.reads_hedged);
    assert_eq!((counters.retries, counters.hedges_held_back), (0, 0), "{counters:?}");
}

#[test]
fn bad_bytes_of_the_second_member_do_not_end_the_wait() {
    let slow = Duration::from_millis(300);
    let (world, shard, edge, seen) = setup(3, &[(1, slow), (3, slow)]);
    seen.rotten.borrow_mut().push(NodeId(2));
    let reading = Rc::clone(&edge);
    world.run(&shard.clone(), async move {
        for _ in 0..8 {
            let took = read(&reading, &shard).await.unwrap();
            assert!(took < 3 * slow, "{took:?}");
        }
    });
    let counters = edge.counters();
    assert!(counters.bad_replies > 0 && counters.reads_hedged > 0, "{counters:?}");
}
