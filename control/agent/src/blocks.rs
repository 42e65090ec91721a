//! Orders about whole blocks on their way to novad, and what comes of them on its way back.

use std::collections::BTreeMap;

use nova_api::cluster as pb;
use nova_ring::abi::{
    AgentCommand, BlockRun, BlockRuns, HeldBlocks, PAGE_BLOCKS_MAX, RUN_BLOCKS_MAX, RUNS_MAX,
};
use nova_units::{BlockId, GroupId};

use crate::picture::Picture;

/// Runs that one order may name.
const RUNS_PER_ORDER_MAX: usize = 512;
/// Lists that come in parts at the same time; the oldest is given up for a new one.
const LISTS_MAX: usize = 64;

/// Hands novad an order to delete, in as many commands as it takes.
///
/// # Errors
/// Why it was not handed over, or not whole.
pub(crate) fn delete(picture: &Picture, order: &pb::DeleteBlocks) -> Result<(), &'static str> {
    if order.runs.len() > RUNS_PER_ORDER_MAX {
        return Err("it names more than 512 runs of blocks");
    }
    let run = |run: &pb::BlockRun| {
        let fits = (1..=RUN_BLOCKS_MAX).contains(&run.count);
        let ends = run.first.checked_add(u64::from(run.count)).filter(|_| fits);
        ends.map(|_| BlockRun { first: BlockId(run.first), count: run.count })
    };
    let runs: Option<Vec<BlockRun>> = order.runs.iter().map(run).collect();
    let runs = runs.ok_or("it names a run of blocks that cannot be")?;
    for runs in runs.chunks(RUNS_MAX) {
        let command = AgentCommand::DeleteBlocks { group: GroupId(order.group), runs: BlockRuns::new(runs) };
        if !picture.command(command) {
            return Err("novad takes no commands now");
        }
    }
    Ok(())
}

/// Hands novad an order to list.
///
/// # Errors
/// Why it was not handed over.
pub(crate) fn list(picture: &Picture, order: &pb::ListBlocks) -> Result<(), &'static str> {
    let limit = u16::try_from(order.limit).ok().filter(|limit| (1..=PAGE_BLOCKS_MAX).contains(limit));
    let command = AgentCommand::ListBlocks {
        request: order.request,
        group: GroupId(order.group),
        from: BlockId(order.from),
        limit: limit.ok_or("a page has 1 to 4,096 blocks")?,
    };
    if picture.command(command) { Ok(()) } else { Err("novad takes no commands now") }
}

/// What novad deleted, for the controllers.
pub(crate) fn deleted(group: GroupId, deleted: u32, bytes: u64, runs: &BlockRuns) -> pb::BlocksDeleted {
    let run = |run: &BlockRun| pb::BlockRun { first: run.first.0, count: run.count };
    pb::BlocksDeleted {
        group: group.0,
        runs: runs.as_slice().iter().map(run).collect(),
        deleted: deleted.into(),
        bytes,
    }
}

/// Lists that have come in part.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    parts: BTreeMap<u64, (u16, Vec<u64>)>,
}

impl Lists {
    /// Takes a part; answers the whole list with its last one. One that lacks a part is dropped: the controller asks
    /// again.
    pub(crate) fn take(
        &mut self,
        request: u64,
        part: u16,
        last: bool,
        more: bool,
        blocks: &HeldBlocks,
    ) -> Option<pb::BlocksHeld> {
        let (next, mut list) = self.parts.remove(&request).unwrap_or_default();
        if part != next {
            return None;
        }
        list.extend(blocks.as_slice().iter().map(|block| block.0));
        if last {
            return Some(pb::BlocksHeld { request, blocks: list, more });
        }
        self.parts.insert(request, (part + 1, list));
        if self.parts.len() > LISTS_MAX {
            self.parts.pop_first();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(ids: impl IntoIterator<Item = u64>) -> HeldBlocks {
        HeldBlocks::new(&ids.into_iter().map(BlockId).collect::<Vec<_>>())
    }

    #[test]
    fn a_list_comes_together_from_its_parts_and_one_that_lacks_a_part_is_dropped() {
        let mut lists = Lists::default();
        assert_eq!(lists.take(5, 0, false, false, &held(1..=12)), None);
        assert_eq!(
            lists.take(6, 0, true, false, &held([])),
            Some(pb::BlocksHeld { request: 6, ..Default::default() })
        );
        let whole = lists.take(5, 1, true, true, &held([20])).expect("all parts came");
        assert_eq!((whole.blocks.len(), whole.blocks[12], whole.more), (13, 20, true));
        lists.take(7, 0, false, false, &held([1]));
        assert_eq!(lists.take(7, 2, true, false, &held([9])), None, "part 1 is missing");
        assert_eq!(lists.take(7, 1, true, false, &held([9])), None, "the rest is of no use");
    }

    #[test]
    fn an_order_is_cut_into_commands_and_one_that_cannot_be_is_refused() {
        let picture = Picture::new();
        let mut commands = picture.take_commands();
        let run = |first, count| pb::BlockRun { first, count };
        let order = |runs| pb::DeleteBlocks { group: 3, runs };
        assert!(delete(&picture, &order(vec![run(1, 1)])).is_err(), "no novad is attached");
        picture.daemon.send_modify(|daemon| daemon.boot = 1);
        delete(&picture, &order((1..=20).map(|first| run(first, 2)).collect())).expect("there is room");
        let mut sizes = Vec::new();
        while let Ok(AgentCommand::DeleteBlocks { group: GroupId(3), runs }) = commands.try_recv() {
            sizes.push(runs.as_slice().len());
        }
        assert_eq!(sizes, [8, 8, 4]);
        for bad in [run(1, 0), run(u64::MAX, 2), run(1, RUN_BLOCKS_MAX + 1)] {
            assert!(delete(&picture, &order(vec![bad])).is_err());
        }
        let page = |limit| pb::ListBlocks { request: 1, group: 3, from: 0, limit };
        assert!(list(&picture, &page(0)).is_err() && list(&picture, &page(5000)).is_err());
        assert!(list(&picture, &page(4096)).is_ok());
    }
}
