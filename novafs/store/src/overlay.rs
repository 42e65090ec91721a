//! Committed changes since the last checkpoint, over the tree on the device.

use nova_units::{BlockId, GroupId, UnitIndex};
use novafs_format::{Cell, Key, Place, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, RangeInclusive};

/// Changes that the tree beneath does not have yet. Values win over the marks of the same overlay; marks hide what
/// lies beneath.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    values: BTreeMap<Key, Value>,
    /// Units from here on are gone.
    trims: BTreeMap<(GroupId, BlockId), UnitIndex>,
    /// Groups that are gone with everything they had.
    drops: BTreeSet<GroupId>,
}

/// What an overlay says of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen<'a> {
    Value(&'a Value),
    Gone,
    /// Nothing: ask what lies beneath.
    Beneath,
}

impl Overlay {
    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty() && self.trims.is_empty() && self.drops.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    pub(crate) fn hides(&self) -> bool {
        !(self.trims.is_empty() && self.drops.is_empty())
    }

    pub(crate) fn see(&self, key: &Key) -> Seen<'_> {
        if let Some(value) = self.values.get(key) {
            return Seen::Value(value);
        }
        let trimmed = match key.place {
            Place::Unit(block, unit) => self.trims.get(&(key.group, block)).is_some_and(|from| unit >= *from),
            Place::Group | Place::Block(_) => false,
        };
        if trimmed || self.drops.contains(&key.group) { Seen::Gone } else { Seen::Beneath }
    }

    /// Puts a value and returns the cell that the one it replaces had.
    pub(crate) fn put(&mut self, key: Key, value: Value) -> Option<Cell> {
        let kept = match value {
            Value::Unit(record) => Some(record.cell),
            Value::Group(_) | Value::Block(_) => None,
        };
        cell_of(self.values.insert(key, value)).filter(|cell| Some(*cell) != kept)
    }

    /// Cuts a block and adds the cells of its units in this overlay to `freed`.
    pub(crate) fn trim(&mut self, group: GroupId, block: BlockId, from: UnitIndex, freed: &mut Vec<Cell>) {
        let range = Key::unit(group, block, from)..=Key::unit(group, block, UnitIndex(u16::MAX));
        self.remove(range, freed);
        let mark = self.trims.entry((group, block)).or_insert(from);
        *mark = from.min(*mark);
    }

    /// Drops a group and adds the cells of its units in this overlay to `freed`.
    pub(crate) fn drop_group(&mut self, group: GroupId, freed: &mut Vec<Cell>) {
        self.remove(group_range(group), freed);
        self.trims.retain(|(of, _), _| *of != group);
        self.drops.insert(group);
    }

    fn remove(&mut self, range: RangeInclusive<Key>, freed: &mut Vec<Cell>) {
        let keys: Vec<Key> = self.values.range(range).map(|(key, _)| *key).collect();
        freed.extend(keys.iter().filter_map(|key| cell_of(self.values.remove(key))));
    }

    pub(crate) fn values(&self, from: Bound<Key>, to: Bound<Key>) -> impl Iterator<Item = (&Key, &Value)> {
        self.values.range((from, to))
    }

    /// Those of [`Overlay::hidden`] that may hide a unit between two keys of one group, both included.
    ///
    /// # Panics
    /// When the keys are of two groups.
    pub(crate) fn hidden_between(&self, from: &Key, to: &Key) -> Vec<(Key, Key)> {
        assert_eq!(from.group, to.group, "a range of one group");
        let group = from.group;
        if self.drops.contains(&group) {
            return vec![group_range(group).into_inner()];
        }
        let block = |key: &Key, of_group: BlockId| match key.place {
            Place::Unit(block, _) | Place::Block(block) => block,
            Place::Group => of_group,
        };
        let (first, last) = (block(from, BlockId(0)), block(to, BlockId(u64::MAX)));
        let trims = self.trims.range((group, first)..=(group, last));
        trims
            .map(|((group, block), from)| {
                (Key::unit(*group, *block, *from), Key::unit(*group, *block, UnitIndex(u16::MAX)))
            })
            .collect()
    }

    /// Ranges of keys hidden beneath, in ascending order and apart from each other.
    pub(crate) fn hidden(&self) -> Vec<(Key, Key)> {
        let mut ranges: Vec<(Key, Key)> =
            self.drops.iter().map(|group| group_range(*group).into_inner()).collect();
        for ((group, block), from) in &self.trims {
            if !self.drops.contains(group) {
                let end = Key::unit(*group, *block, UnitIndex(u16::MAX));
                ranges.push((Key::unit(*group, *block, *from), end));
            }
        }
        ranges.sort_unstable();
        ranges
    }
}

pub(crate) fn cell_of(value: Option<Value>) -> Option<Cell> {
    match value {
        Some(Value::Unit(record)) => Some(record.cell),
        _ => None,
    }
}

fn group_range(group: GroupId) -> RangeInclusive<Key> {
    Key::group(group)..=Key::unit(group, BlockId(u64::MAX), UnitIndex(u16::MAX))
}
