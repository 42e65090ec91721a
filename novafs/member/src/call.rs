//! Calls to other members.

use nova_buf::SharedBuf;
use nova_device::{Peers, Request, Shard};
use nova_units::{NodeId, Priority};
use novafs_format::{PAGE, SealedUnit};
use novafs_replica::message::BODY_BYTES_MAX;
use novafs_replica::{Answer, Message, Route};
use std::time::Duration;

use crate::Member;

/// Members talk behind the edge: their messages have credits of their own.
const MEMBER_HOP: u8 = 1;
/// So has what a member passes on: it must not wait for those who wait for it.
const PASSED_ON_HOP: u8 = 2;

impl<S: Shard, P: Peers> Member<S, P> {
    /// Asks a member; `None` when there is no answer that can be believed.
    pub(crate) async fn ask(
        &self,
        to: NodeId,
        message: &Message,
        body: Option<SharedBuf>,
        deadline: Duration,
    ) -> Option<(Answer, Option<SharedBuf>)> {
        let brings_body = matches!(message, Message::Fetch { .. } | Message::Copy { .. });
        let reply_bytes_max = if brings_body { BODY_BYTES_MAX } else { 0 };
        let passed_on = matches!(message, Message::Prepare { route: Route::PassedOn, .. });
        let hop = if passed_on { PASSED_ON_HOP } else { MEMBER_HOP };
        let control = matches!(
            message,
            Message::Ping { .. }
                | Message::Commits { .. }
                | Message::CommitQuery { .. }
                | Message::Open { .. }
        );
        let request = Request {
            priority: Priority::P0,
            hop,
            head: message.encode(),
            body,
            reply_bytes_max: u32::try_from(reply_bytes_max).expect("a body is 1 MiB at most"),
            deadline,
            control,
        };
        let reply = self.peers.call(to, request).await.ok()?;
        let answer = Answer::decode(&reply.head).ok()?;
        let body = reply.body.map(nova_buf::DmaBuf::freeze).filter(|body| !body.is_empty());
        if body_is_whole(answer.body_units(), body.as_ref()) {
            Some((answer, body))
        } else {
            self.count(|counters| counters.damaged += 1);
            None
        }
    }
}

/// Whether `body` is exactly the stored bytes of `units`, every page with its sum.
pub(crate) fn body_is_whole<'a>(
    units: impl IntoIterator<Item = &'a SealedUnit>,
    body: Option<&SharedBuf>,
) -> bool {
    let sums = body.and_then(SharedBuf::page_sums);
    let body = body.map(|body| &body[..]).unwrap_or_default();
    let mut at = 0;
    for unit in units {
        let range = at..at + unit.padded_bytes();
        at = range.end;
        let Some(stored) = body.get(range.clone()) else { return false };
        // Who received the bytes went over them once; what they sum up to is compared here.
        let checked = match sums {
            Some(sums) => unit.check_page_sums(&sums[range.start / PAGE..range.end / PAGE]),
            None => unit.check_pages(stored),
        };
        if checked.is_err() {
            return false;
        }
    }
    at == body.len()
}
