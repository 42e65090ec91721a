//! A block that is written at any offset, cut, and taken over by later generations is what an array of bytes would be.

use std::rc::Rc;

use nova_device::mem::{HostOptions, MemShard, World};
use nova_device::sync::join_all;
use nova_units::{BlockId, Generation};
use novafs_edge::{
    Edge, EdgeError, EdgeOptions, Keyring, ReadRequest, TrimRequest, WriteRequest, WriterOpened,
};
use novafs_format::seal::{CipherKind, DomainKey};
use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};

use crate::fake_hosts::{FakeHosts, GROUP, Seen, map};

const BLOCK: BlockId = BlockId(7);
const BYTES_MAX: u64 = 40_000;

#[derive(Clone, Debug)]
enum Step {
    /// Writes asked for at once, in this order: where, how much, filled with what.
    Write(Vec<(u64, usize, u8)>),
    /// The block ends here, or where it ends already.
    Trim(u64),
    /// The file grows without being written.
    Extend(u64),
    /// Another session takes the block over; the one before tries to go on.
    Reopen,
    /// The writer lets the block go and takes it up again.
    Release,
    Read(u64, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let write = (0..BYTES_MAX, prop_oneof![1_usize..200, 1_usize..20_000, Just(4096_usize)], any::<u8>());
    prop_oneof![
        5 => vec(write, 1..5).prop_map(Step::Write),
        2 => (0..BYTES_MAX).prop_map(Step::Trim),
        1 => (0..BYTES_MAX).prop_map(Step::Extend),
        1 => Just(Step::Reopen),
        1 => Just(Step::Release),
        3 => (0..BYTES_MAX, 1..BYTES_MAX).prop_map(|(offset, bytes)| Step::Read(offset, bytes)),
    ]
}

type FakeEdge = Rc<Edge<MemShard, FakeHosts>>;

struct Play {
    edge: FakeEdge,
    /// Another edge, with the other cipher.
    reader: FakeEdge,
    unit_log2: u8,
    writer: WriterOpened,
    generation: Generation,
    model: Vec<u8>,
    /// Data beyond the length that the file's metadata knows must not come back.
    data_end: u64,
}

impl Play {
    fn write(&self, offset: u64, plain: Vec<u8>, block_bytes: u64) -> WriteRequest {
        WriteRequest {
            writer: self.writer.writer,
            group: GROUP,
            block: BLOCK,
            generation: self.generation,
            unit_log2: self.unit_log2,
            offset,
            block_bytes,
            source: Rc::new(plain),
        }
    }

    async fn write_all(&mut self, writes: &[(u64, usize, u8)]) {
        let mut under_way = Vec::new();
        for (index, (offset, bytes, fill)) in writes.iter().enumerate() {
            let plain: Vec<u8> = (0..*bytes).map(|at| fill ^ (at as u8) ^ ((index as u8) << 5)).collect();
            let request = self.write(*offset, plain.clone(), self.data_end);
            let end = *offset as usize + bytes;
            self.model.resize(self.model.len().max(end), 0);
            self.model[*offset as usize..end].copy_from_slice(&plain);
            self.data_end = self.data_end.max(end as u64);
            let edge = Rc::clone(&self.edge);
            under_way.push(async move { edge.write(request).await });
        }
        assert!(join_all(under_way).await.iter().all(Result::is_ok));
    }

    async fn read(&self, offset: u64, bytes: u64) {
        let block_bytes = self.model.len() as u64;
        let offset = offset.min(block_bytes.saturating_sub(1));
        let bytes = bytes.min(block_bytes - offset);
        if bytes == 0 {
            return;
        }
        let request = ReadRequest {
            group: GROUP,
            block: BLOCK,
            key: self.writer.key,
            unit_log2: self.unit_log2,
            block_bytes,
            offset,
            bytes,
            sparse: true,
        };
        let mut out = vec![0xEE; bytes as usize];
        let give = |at: u64, plain: &[u8]| out[at as usize..at as usize + plain.len()].copy_from_slice(plain);
        self.reader.read(&request, give).await.unwrap();
        assert!(out == self.model[offset as usize..(offset + bytes) as usize], "{bytes} bytes from {offset}");
    }

    async fn trim(&mut self, to: u64) {
        let from_bytes = to.min(self.model.len() as u64);
        let request = TrimRequest {
            writer: self.writer.writer,
            group: GROUP,
            block: BLOCK,
            generation: self.generation,
            unit_log2: self.unit_log2,
            from_bytes,
        };
        self.edge.trim(request).await.unwrap();
        self.model.truncate(from_bytes as usize);
        self.data_end = self.data_end.min(from_bytes);
    }

    async fn reopen(&mut self) {
        let old = self.write(0, vec![0xBB; 3000], self.data_end);
        self.generation = self.generation.next();
        self.edge.fence(GROUP, BLOCK, self.generation).await.unwrap();
        self.writer = self.edge.open_writer(0, 0).await.unwrap();
        let refused = self.edge.write(old).await;
        assert!(matches!(refused, Err(EdgeError::Fenced { .. })), "{refused:?}");
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Write(writes) => self.write_all(&writes).await,
            Step::Trim(to) => self.trim(to).await,
            Step::Extend(to) => self.model.resize(self.model.len().max(to as usize), 0),
            Step::Reopen => self.reopen().await,
            Step::Release => {
                // It may not have been written yet.
                let _ = self.edge.release_block(self.writer.writer, BLOCK, self.generation).await;
            }
            Step::Read(offset, bytes) => self.read(offset, bytes).await,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_rewritten_block_equals_an_array_of_bytes(steps in vec(step(), 1..24), unit_log2 in 12_u8..=16, seed: u64) {
        let world = World::new(seed);
        let shard = world.add_host(HostOptions { pool_bytes: 8 << 20, ..HostOptions::default() });
        let hosts = FakeHosts { shard: shard.clone(), seen: Rc::new(Seen::default()) };
        let edge = |cipher| {
            let keys = Keyring::of(DomainKey::new(1, 1, [7; 32]).with_cipher(cipher));
            let edge = Edge::new(shard.clone(), hosts.clone(), keys, EdgeOptions::default());
            edge.configure(map(1, 1));
            edge
        };
        let (edge, reader) = (edge(CipherKind::AwsLc), edge(CipherKind::AesGcm));
        let generation = Generation(1);
        world.run(&shard, async move {
            let writer = edge.open_writer(0, 0).await.unwrap();
            let mut play = Play { edge, reader, unit_log2, writer, generation, model: Vec::new(), data_end: 0 };
            for step in steps {
                play.take(step).await;
            }
            play.read(0, u64::MAX).await;
        });
        // No nonce met a key twice, whatever was closed and opened again.
        let writes = hosts.seen.writes.borrow();
        let mut nonces: Vec<_> = writes
            .iter()
            .flat_map(|(entry, _)| entry.units())
            .map(|unit| (unit.salt, unit.counter, unit.unit, unit.tag))
            .collect();
        nonces.sort_unstable();
        // The same bytes may be sent twice; then the tag is the same too.
        nonces.dedup();
        assert!(nonces.windows(2).all(|pair| (pair[0].0, pair[0].1) != (pair[1].0, pair[1].1)));
    }
}
