//! The store against a model of maps and lists: random operations, power cuts, restarts, a small log that wraps and a
//! small device that fills up.

use crate::rig::{MIB, Rig, at, body, cut, entry, expect_unit, unit};
use nova_device::Durability;
use nova_device::mem::{KillMode, MemShard};
use nova_units::{BlockId, Generation, GroupId, IoClass, Seq, UnitIndex};
use novafs_format::LogEntry;
use novafs_store::{OpenOptions, Store, StoreError};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

type Name = (u64, u16, u64, u32);

#[derive(Clone, Debug, Default)]
struct GroupModel {
    log: Vec<Rc<(LogEntry, Vec<Name>)>>,
    commit: usize,
}

impl GroupModel {
    fn units(&self) -> BTreeMap<(u64, u16), Name> {
        let mut units = BTreeMap::new();
        for (entry, names) in self.log[..self.commit].iter().map(Rc::as_ref) {
            units.extend(names.iter().map(|name| ((name.0, name.1), *name)));
            match entry {
                LogEntry::Trim { block, from_unit, .. } => {
                    units.retain(|(of, unit), _| *of != block.0 || *unit < from_unit.0);
                }
                LogEntry::Delete { block } => units.retain(|(of, _), _| *of != block.0),
                LogEntry::Units(_) | LogEntry::Fence { .. } => {}
            }
        }
        units
    }

    /// Nothing is written to a deleted block again: the next one takes its place.
    fn live_block(&self, block: u64) -> u64 {
        let deleted = |logged: &&Rc<(LogEntry, _)>| matches!(logged.0, LogEntry::Delete { block: of } if of.0 % 100 == block);
        block + 100 * self.log.iter().filter(deleted).count() as u64
    }

    fn fence(&self, block: u64) -> Option<Generation> {
        let of = |logged: &Rc<(LogEntry, _)>| match &logged.0 {
            LogEntry::Fence { block: of, generation } if of.0 == block => Some(*generation),
            LogEntry::Delete { block: of } if of.0 == block => Some(Generation(u32::MAX)),
            _ => None,
        };
        self.log[..self.commit].iter().filter_map(of).max()
    }
}

struct Play {
    rng: fastrand::Rng,
    groups: BTreeMap<GroupId, GroupModel>,
    counter: u64,
    full: u32,
    /// Slots that compaction emptied.
    emptied: usize,
}

impl Play {
    fn draw_entry(&mut self, model: &GroupModel) -> (LogEntry, Vec<Name>) {
        let block = model.live_block(self.rng.u64(1..12));
        match self.rng.u8(..) {
            0..8 => {
                self.counter += 1;
                let (block, from_unit) = (BlockId(block), UnitIndex(self.rng.u16(..30)));
                (LogEntry::Trim { block, from_unit, cut: cut(self.counter) }, vec![])
            }
            8..14 => (LogEntry::Delete { block: BlockId(block) }, vec![]),
            14..24 => (
                LogEntry::Fence { block: BlockId(block), generation: Generation(self.rng.u32(1..9)) },
                vec![],
            ),
            _ => {
                let first = self.rng.u16(..50);
                let bytes =
                    *self.rng.choice(&[70, 4096, 9000, 30_000, 65_536, 65_536, 65_536, 65_536]).unwrap();
                let most = if bytes < 9000 { 3 } else { 8 };
                let names: Vec<Name> = (0..self.rng.u16(1..most))
                    .map(|index| {
                        self.counter += 1;
                        (block, first + index, self.counter, bytes)
                    })
                    .collect();
                (entry(&names).0, names)
            }
        }
    }

    async fn step(&mut self, store: &Rc<Store<MemShard>>, shard: &MemShard) {
        let group = GroupId(self.rng.u32(1..4));
        let model = self.groups.entry(group).or_default().clone();
        let length = model.log.len();
        match self.rng.u8(..100) {
            0..50 => {
                let (entry, names) = self.draw_entry(&model);
                let stored: Vec<u8> =
                    names.iter().flat_map(|name| unit(name.0, name.1, name.2, name.3).1).collect();
                let sent = (!stored.is_empty()).then(|| body(shard, &stored));
                let point = at(length as u64 + 1);
                match store.append(group, point, &entry, sent, Durability::Synced).await {
                    Ok(()) => self.groups.get_mut(&group).unwrap().log.push(Rc::new((entry, names))),
                    Err(StoreError::Full { .. }) => {
                        self.full += 1;
                        assert!(!names.is_empty(), "an entry without bodies needs no room");
                        self.delete_something(store, group).await;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            50..70 => {
                let commit = self.rng.usize(model.commit..=length);
                store.commit(group, Seq(commit as u64));
                self.groups.get_mut(&group).unwrap().commit = commit;
            }
            70 => self.emptied += store.compact().await.unwrap().slots,
            71..74 => {
                let above = self.rng.usize(model.commit..=length);
                store.discard_above(group, Seq(above as u64)).await.unwrap();
                self.groups.get_mut(&group).unwrap().log.truncate(above);
            }
            74..76 => store.checkpoint().await.unwrap(),
            76 => {
                let first = self.rng.u64(1..12);
                let records = store.scan(group, Some((BlockId(first), UnitIndex(0))), 6).await.unwrap();
                store.settle(&records).await.unwrap();
            }
            77..78 => {
                store.drop_group(group).await.unwrap();
                self.groups.insert(group, GroupModel::default());
            }
            78..82 => {
                let units = model.units();
                let names: Vec<Name> = units.values().copied().collect();
                if let Some(name) = self.rng.choice(&names) {
                    let found =
                        store.read(group, BlockId(name.0), UnitIndex(name.1), IoClass::Client).await.unwrap();
                    let found = found.unwrap().record;
                    let stored = unit(name.0, name.1, name.2, name.3).1;
                    match store.repair(group, found.sealed, found.commit, body(shard, &stored)).await {
                        Ok(installed) => assert!(installed),
                        Err(StoreError::Full { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            82..97 => {
                let name = (model.live_block(self.rng.u64(1..12)), self.rng.u16(..60));
                match model.units().get(&name) {
                    Some(name) => expect_unit(store, group, *name).await,
                    None => {
                        let found =
                            store.read(group, BlockId(name.0), UnitIndex(name.1), IoClass::Client).await;
                        assert!(found.unwrap().is_none(), "{group} {name:?} should not be there");
                        let units = name.1..name.1 + 1;
                        let run = store.read_run(group, BlockId(name.0), units, IoClass::Client).await;
                        assert!(run.unwrap().records.is_empty(), "{group} {name:?} should not be there");
                    }
                }
            }
            _ => self.check_scan(store, group).await,
        }
    }

    /// What a person does when a disk is full.
    async fn delete_something(&mut self, store: &Rc<Store<MemShard>>, group: GroupId) {
        let model = self.groups.get_mut(&group).unwrap();
        let block = BlockId(model.live_block(self.rng.u64(1..12)));
        let point = at(model.log.len() as u64 + 1);
        let entry = LogEntry::Delete { block };
        store.append(group, point, &entry, None, Durability::Synced).await.unwrap();
        model.log.push(Rc::new((entry, vec![])));
        model.commit = model.log.len();
        store.commit(group, Seq(model.commit as u64));
    }

    async fn check_scan(&self, store: &Store<MemShard>, group: GroupId) {
        let units = self.groups[&group].units();
        let mut scanned = Vec::new();
        loop {
            let after = scanned
                .last()
                .map(|record: &novafs_format::UnitRecord| (record.sealed.block, record.sealed.unit));
            let page = store.scan(group, after, 9).await.unwrap();
            if page.is_empty() {
                break;
            }
            scanned.extend(page);
        }
        let scanned: Vec<_> = scanned
            .iter()
            .map(|record| (record.sealed.block.0, record.sealed.unit.0, record.sealed.counter))
            .collect();
        let expected: Vec<_> = units.values().map(|name| (name.0, name.1, name.2)).collect();
        assert_eq!(scanned, expected);
        for block in (1..12).chain(101..112).chain(201..212) {
            assert_eq!(store.fence_of(group, BlockId(block)), self.groups[&group].fence(block));
        }
    }

    async fn check_all(&self, store: &Store<MemShard>) {
        for (group, model) in &self.groups {
            for name in model.units().values() {
                expect_unit(store, *group, *name).await;
            }
            self.check_scan(store, *group).await;
        }
    }

    /// After a restart everything acknowledged is there; of commit points some may have to be told again.
    fn settle(&mut self, store: &Store<MemShard>) {
        for (group, model) in &mut self.groups {
            let state = store.group(*group);
            let last = state.as_ref().map_or(0, |state| state.last.seq.0);
            let commit = state.as_ref().map_or(0, |state| state.commit_seq.0);
            assert_eq!(last, model.log.len() as u64, "{group}");
            assert!(commit <= model.commit as u64, "{group}: nothing is committed by itself");
            store.commit(*group, Seq(model.commit as u64));
        }
    }
}

fn play(seed: u64) -> Play {
    let mut rig = Rig::new(seed, 16 * MIB);
    rig.options = OpenOptions { cache_pages: 8, checkpoint_wal_percent: 30, ..rig.options };
    if seed.is_multiple_of(2) {
        rig.options.inline_held_bytes_max = 64 << 10;
    }
    let rng = fastrand::Rng::with_seed(seed);
    let mut play = Play { rng, groups: BTreeMap::new(), counter: 0, full: 0, emptied: 0 };
    for round in 0..5 {
        let store = rig.open();
        play.settle(&store);
        let shard = rig.shard.clone();
        let turn = Rc::new(Cell::new(None));
        let slot = turn.clone();
        rig.run(async move {
            play.check_all(&store).await;
            for _ in 0..100 {
                play.step(&store, &shard).await;
            }
            play.check_all(&store).await;
            slot.set(Some(play));
        });
        play = turn.take().unwrap();
        rig.restart(if round % 2 == 0 { KillMode::Power } else { KillMode::Process });
    }
    play
}

#[test]
fn random_histories_match_the_model() {
    let (mut full, mut emptied) = (0, 0);
    for seed in 100..106 {
        eprintln!("seed {seed}");
        let played = play(seed);
        full += played.full;
        emptied += played.emptied;
    }
    assert!(full > 0, "no history filled the device");
    assert!(emptied > 0, "no history compacted");
}
