//! A read that one member keeps waiting is asked of another one too.

use std::pin::pin;

use futures_lite::future::or;
use nova_buf::DmaBuf;
use nova_device::{Clock, PeerError, Peers, Shard};
use nova_units::NodeId;
use novafs_replica::{Answer, Message};

use crate::Edge;

type Asked = Result<(Answer, Option<DmaBuf>), PeerError>;

/// Whether an answer ends the wait for others.
const fn is_enough(asked: &Asked) -> bool {
    matches!(asked, Ok((Answer::Units { .. }, _)))
}

impl<S: Shard, P: Peers> Edge<S, P> {
    /// Asks the first of `hosts`. When it has not answered in the time in which it mostly does, and few reads were asked
    /// twice lately, the second is asked too, and the first good answer is taken; the other is thrown away. Whoever gave
    /// the answer stands first in `hosts` afterwards.
    ///
    /// # Cancel safety
    /// Safe: nothing is changed by a read.
    ///
    /// # Panics
    /// When there is no host.
    pub(crate) async fn ask_nearest(
        &self,
        hosts: &mut [NodeId],
        message: &Message,
        reply_bytes_max: u32,
    ) -> Asked {
        let (host, clock) = (hosts[0], self.shard.clock());
        let mut first = pin!(self.ask(host, message, None, reply_bytes_max));
        self.nearest.note_read();
        let Some(other) = hosts.get(1).copied() else { return first.await };
        let until = clock.now() + self.nearest.hedge_after(host, other, reply_bytes_max);
        let in_time = async { Some(first.as_mut().await) };
        let too_late = async {
            clock.sleep_until(until).await;
            None
        };
        if let Some(asked) = or(in_time, too_late).await {
            return asked;
        }
        if !self.nearest.take_hedge() {
            self.count(|counters| counters.hedges_held_back += 1);
            return first.await;
        }
        self.count(|counters| counters.reads_hedged += 1);
        let mut second = pin!(self.ask(other, message, None, reply_bytes_max));
        let (by_second, asked) =
            or(async { (false, first.as_mut().await) }, async { (true, second.as_mut().await) }).await;
        let (by_second, asked) = match asked {
            asked if is_enough(&asked) => (by_second, asked),
            refused => {
                let asked = if by_second { first.await } else { second.await };
                if is_enough(&asked) { (!by_second, asked) } else { (by_second, refused) }
            }
        };
        if by_second {
            hosts.swap(0, 1);
            self.count(|counters| counters.hedges_won += u64::from(is_enough(&asked)));
        }
        asked
    }
}
