//! Keys that come, rise, and go while blocks are open.

use std::rc::Rc;
use std::time::Duration;

use nova_device::mem::{HostOptions, MemShard, World};
use nova_device::{Clock, Shard};
use nova_units::{BlockId, Generation, TaskClass};
use novafs_edge::{Edge, EdgeError, EdgeOptions, Keyring, ReadRequest};
use novafs_format::seal::DomainKey;

use crate::fake_hosts::{FakeHosts, GROUP, Seen, map};
use crate::rewrite::write;

type MemEdge = Rc<Edge<MemShard, FakeHosts>>;

fn key(domain: u32, version: u32) -> DomainKey {
    DomainKey::new(domain, version, [version as u8 ^ (domain as u8) << 4; 32])
}

fn setup(seed: u64, ring: Keyring) -> (World, MemShard, MemEdge) {
    let world = World::new(seed);
    let shard = world.add_host(HostOptions { pool_bytes: 32 << 20, ..HostOptions::default() });
    let hosts = FakeHosts { shard: shard.clone(), seen: Rc::new(Seen::default()) };
    let edge = Edge::new(shard.clone(), hosts, ring, EdgeOptions::default());
    edge.configure(map(1, 1));
    (world, shard, edge)
}

async fn read(edge: &MemEdge, key: (u32, u32), block: u64, bytes: u64) -> Result<Vec<u8>, EdgeError> {
    let request = ReadRequest {
        group: GROUP,
        block: BlockId(block),
        key,
        unit_log2: 16,
        block_bytes: bytes,
        offset: 0,
        bytes,
        sparse: false,
    };
    let mut out = vec![0; bytes as usize];
    edge.read(&request, |at, plain| out[at as usize..at as usize + plain.len()].copy_from_slice(plain))
        .await?;
    Ok(out)
}

#[test]
fn an_open_block_keeps_its_key_over_a_rotation_and_a_new_one_has_the_new_key() {
    let (world, shard, edge) = setup(1, Keyring::of(key(1, 1)));
    world.run(&shard, async move {
        let before = edge.open_writer(1, 0).await.unwrap();
        edge.write(write(&before, 5, 0, 0, b"first ")).await.unwrap();
        edge.keys().give(key(1, 2), 2, None);
        assert_eq!(edge.current_key(1).await, Ok((1, 2)));
        // Merged with what is sealed under version 1, and sealed under it again.
        edge.write(write(&before, 5, 6, 6, b"second")).await.unwrap();
        let after = edge.open_writer(1, 0).await.unwrap();
        edge.write(write(&after, 6, 0, 0, b"third")).await.unwrap();
        assert_eq!((before.key, after.key), ((1, 1), (1, 2)));
        assert_eq!(read(&edge, (1, 1), 5, 12).await.unwrap(), b"first second");
        assert_eq!(read(&edge, (1, 2), 6, 5).await.unwrap(), b"third");
        assert!(
            matches!(read(&edge, (1, 2), 5, 12).await, Err(EdgeError::Corrupt { .. })),
            "not by another key"
        );
        let summary = edge.close_block(after.writer, BlockId(6), Generation(1), 5).unwrap();
        assert_eq!(summary.key, (1, 2));
        // Whoever reopens the block asks for the version that the block names.
        assert_eq!(edge.open_writer(1, 1).await.unwrap().key, (1, 1));
    });
}

#[test]
fn a_request_waits_for_a_key_that_is_brought_and_not_for_ever() {
    let (world, shard, edge) = setup(2, Keyring::empty());
    let clock = shard.clock().clone();
    let bringing = shard.clone();
    world.run(&shard, async move {
        let begun = clock.now();
        let missing = edge.open_writer(7, 0).await.unwrap_err();
        assert_eq!(missing, EdgeError::NoKey { domain: 7, version: 0 });
        assert!(clock.now() - begun >= EdgeOptions::default().key_wait);
        assert_eq!(edge.keys().take_unsaid(), [7]);
        let (brought, later) = (Rc::clone(&edge), clock.clone());
        bringing.spawn(TaskClass::Control, async move {
            later.sleep_until(later.now() + Duration::from_millis(300)).await;
            brought.keys().give(key(7, 3), 3, None);
        });
        assert_eq!(edge.open_writer(7, 0).await.unwrap().key, (7, 3));
    });
}

#[test]
fn a_dropped_domain_is_neither_read_nor_written_and_others_are() {
    let ring = Keyring::of(key(1, 1));
    ring.give(key(2, 1), 1, None);
    let (world, shard, edge) = setup(3, ring);
    world.run(&shard, async move {
        let (gone, stays) = (edge.open_writer(2, 0).await.unwrap(), edge.open_writer(1, 0).await.unwrap());
        edge.write(write(&gone, 5, 0, 0, b"gone")).await.unwrap();
        edge.write(write(&stays, 6, 0, 0, b"stays")).await.unwrap();
        edge.drop_domain(2);
        let dropped = EdgeError::KeyDropped { domain: 2 };
        assert_eq!(read(&edge, (2, 1), 5, 4).await.unwrap_err(), dropped);
        assert_eq!(edge.write(write(&gone, 5, 0, 4, b"more")).await.unwrap_err(), dropped);
        assert_eq!(edge.open_writer(2, 0).await.unwrap_err(), dropped);
        edge.keys().give(key(2, 2), 2, None);
        assert_eq!(edge.open_writer(2, 0).await.unwrap_err(), dropped, "late word brings nothing back");
        assert_eq!(read(&edge, (1, 1), 6, 5).await.unwrap(), b"stays");
    });
}

#[test]
fn a_key_that_nobody_speaks_of_any_more_is_forgotten_with_what_is_open_under_it() {
    let ring = Keyring::empty();
    let (world, shard, edge) = setup(4, ring.clone());
    let clock = shard.clock().clone();
    world.run(&shard, async move {
        let until = clock.now() + Duration::from_secs(60);
        ring.give(key(1, 1), 1, Some(until));
        let writer = edge.open_writer(1, 0).await.unwrap();
        edge.write(write(&writer, 5, 0, 0, b"plain")).await.unwrap();
        edge.expire_keys();
        assert!(read(&edge, (1, 1), 5, 5).await.is_ok());
        clock.sleep_until(until).await;
        edge.expire_keys();
        let gone = EdgeError::NoKey { domain: 1, version: 1 };
        assert_eq!(edge.write(write(&writer, 5, 5, 5, b"more")).await.unwrap_err(), gone);
        assert_eq!(read(&edge, (1, 1), 5, 5).await.unwrap_err(), gone);
        ring.give(key(1, 1), 1, None);
        assert_eq!(read(&edge, (1, 1), 5, 5).await.unwrap(), b"plain");
    });
}
