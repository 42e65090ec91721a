//! Which blocks a device holds, for whoever compares them with the file metadata.

use crate::core::yield_now;
use crate::error::StoreError;
use crate::store::Store;
use nova_device::Shard;
use nova_units::{BlockId, GroupId, IoClass, UnitIndex};
use novafs_format::Key;
use std::ops::RangeInclusive;

/// Unit records that one look into the tree asks for.
const RECORDS_PER_LOOK: usize = 64;

/// A block of which units are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Units with a committed version.
    pub units: u32,
    /// Bytes of their cells' contents, padding included.
    pub bytes: u64,
}

/// Some of the blocks that a device holds of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldPage {
    /// In ascending order.
    pub blocks: Vec<BlockId>,
    /// There may be more behind the last one.
    pub more: bool,
}

impl<S: Shard> Store<S> {
    /// Blocks of a group, with ids in `range`, of which at least one committed unit is held; at most `limit`. Other
    /// tasks of the shard run in between.
    ///
    /// # Errors
    /// [`StoreError::Metadata`], [`StoreError::Read`], [`StoreError::DeviceFailed`], [`StoreError::Closed`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn held_blocks(
        &self,
        group: GroupId,
        range: RangeInclusive<BlockId>,
        limit: usize,
    ) -> Result<HeldPage, StoreError> {
        let mut page = HeldPage::default();
        let mut from = *range.start();
        while from <= *range.end() {
            let (first, last) =
                (Key::unit(group, from, UnitIndex(0)), Key::unit(group, *range.end(), UnitIndex(u16::MAX)));
            let records = self.units_between(first, last, RECORDS_PER_LOOK, IoClass::Scrub).await?;
            let Some(newest) = records.last().map(|record| record.sealed.block) else { return Ok(page) };
            for record in records {
                if page.blocks.last() == Some(&record.sealed.block) {
                    continue;
                }
                if page.blocks.len() == limit {
                    page.more = true;
                    return Ok(page);
                }
                page.blocks.push(record.sealed.block);
            }
            match newest.0.checked_add(1) {
                Some(next) => from = BlockId(next),
                None => return Ok(page),
            }
            yield_now().await;
        }
        Ok(page)
    }

    /// What is held of one block.
    ///
    /// # Errors
    /// As [`Store::held_blocks`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn held(&self, group: GroupId, block: BlockId) -> Result<Held, StoreError> {
        let mut held = Held::default();
        let mut from = Some(0);
        while let Some(unit) = from {
            let first = Key::unit(group, block, UnitIndex(unit));
            let last = Key::unit(group, block, UnitIndex(u16::MAX));
            let records = self.units_between(first, last, RECORDS_PER_LOOK, IoClass::Scrub).await?;
            for record in &records {
                held.units += 1;
                held.bytes += record.sealed.padded_bytes() as u64;
            }
            from = records.last().and_then(|record| record.sealed.unit.0.checked_add(1));
            yield_now().await;
        }
        Ok(held)
    }
}
