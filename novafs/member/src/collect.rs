//! Blocks that nothing refers to leave their group, through its log like every other change.

use std::future::poll_fn;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use nova_device::{Clock, Peers, Shard};
use nova_units::{BlockId, CommitPoint, Epoch, GroupId};
use novafs_format::LogEntry;
use novafs_replica::{Answer, Message, ReadEnd, ReadPermit, options::RETRY_SOON_MS};

use crate::{Member, drive};

/// Blocks that one look at the store asks for.
const BLOCKS_PER_LOOK: usize = 64;
/// Deletes that one range has under way.
const DELETES_AT_ONCE: usize = 4;
/// How often one delete is offered again while the group takes none: about a second.
const OFFERS_MAX: usize = 50;

/// What [`Member::collect`] found and deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blocks that were held and are deleted on every member now.
    pub blocks: u32,
    /// Sealed bytes that each member held of them, padding included.
    pub bytes: u64,
}

impl<S: Shard, P: Peers> Member<S, P> {
    /// Deletes every block of `range` that the group holds. On return the group holds none: each was deleted by an
    /// entry of its log, which every member in sync has. Ids that nobody holds cost one look at the store and no
    /// entry.
    ///
    /// Whoever asks answers for it that nothing refers to these blocks and nothing ever will. Asking twice, or on
    /// several hosts, does no harm.
    ///
    /// # Errors
    /// The answer of a member that cannot say so now: it is not the primary, has no lease, or the group takes no
    /// entries. Some blocks may be deleted by then.
    ///
    /// # Cancel safety
    /// A dropped call may have deleted some.
    pub async fn collect(
        self: &Rc<Self>,
        group: GroupId,
        range: RangeInclusive<BlockId>,
    ) -> Result<Collected, Answer> {
        let Some(_pass) = self.gate.enter() else { return Err(Answer::NotMember) };
        let mut collected = Collected::default();
        loop {
            let (epoch, permit) = self.begin_look(group)?;
            let held = self.store.held_blocks(group, range.clone(), BLOCKS_PER_LOOK).await;
            let held = held.map_err(|error| refusal(&error))?;
            self.end_look(&permit)?;
            if held.blocks.is_empty() {
                return Ok(collected);
            }
            for some in held.blocks.chunks(DELETES_AT_ONCE) {
                let deletes = some.iter().map(|block| Rc::clone(self).delete(group, epoch, *block));
                for deleted in all(deletes).await {
                    collected.blocks += 1;
                    collected.bytes += deleted?;
                }
            }
        }
    }

    /// Leave to say what the group holds: only its primary knows of every entry whether it is committed.
    fn begin_look(&self, group: GroupId) -> Result<(Epoch, ReadPermit), Answer> {
        let drive = self.drive.borrow();
        let view = drive.configuration.group(group).ok_or(Answer::NotMember)?;
        if view.primary != drive.host.identity().node {
            return Err(Answer::NotPrimary { primary: view.primary });
        }
        let permit = drive.host.begin_read(self.shard.clock().now(), group, view.epoch)?;
        Ok((view.epoch, permit))
    }

    fn end_look(&self, permit: &ReadPermit) -> Result<(), Answer> {
        // As if something prepared had been found: then only a primary that knows all commits may say what it read.
        let prepared = Some(CommitPoint::default());
        let now = self.shard.clock().now();
        match self.drive.borrow().host.end_read(now, permit, prepared) {
            ReadEnd::Serve => Ok(()),
            ReadEnd::Refuse(refusal) => Err(refusal),
            ReadEnd::Ask { primary, .. } => Err(Answer::NotPrimary { primary }),
        }
    }

    /// Deletes a block; answers its sealed bytes.
    async fn delete(self: Rc<Self>, group: GroupId, epoch: Epoch, block: BlockId) -> Result<u64, Answer> {
        let size = self.store.held(group, block).await.map_err(|error| refusal(&error))?;
        let node = self.identity().node;
        let mut offers = 0;
        loop {
            let entry = LogEntry::Delete { block };
            let message = Message::Write { group, epoch, entry };
            let (answer, _) = self.serve_by_host(node, message, None).await;
            offers += 1;
            match answer {
                Answer::Written { .. } => return Ok(size.bytes),
                Answer::Busy { retry_after_ms } if offers < OFFERS_MAX => {
                    let pause = Duration::from_millis(retry_after_ms.into());
                    self.shard.clock().sleep_until(self.shard.clock().now() + pause).await;
                }
                refusal => return Err(refusal),
            }
        }
    }
}

/// Runs the futures beside each other; answers in their order.
async fn all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    poll_fn(move |context| {
        let mut pending = false;
        for (future, output) in running.iter_mut().filter(|(_, output)| output.is_none()) {
            match future.as_mut().poll(context) {
                Poll::Ready(done) => *output = Some(done),
                Poll::Pending => pending = true,
            }
        }
        if pending {
            return Poll::Pending;
        }
        Poll::Ready(running.drain(..).filter_map(|(_, output)| output).collect())
    })
    .await
}

fn refusal(error: &novafs_store::StoreError) -> Answer {
    match drive::fault(error) {
        novafs_replica::StoreFault::DeviceFailed => Answer::DeviceFailed,
        _ => Answer::Busy { retry_after_ms: RETRY_SOON_MS },
    }
}
