//! Entries that this host, the first of a chain, passes on while it stores them.
//!
//! The primary is answered once both ends are known, or when this host refuses.

use std::collections::BTreeMap;

use nova_units::{NodeId, Seq};

use super::follow::Prepare;
use super::group::Group;
use super::{CallFor, Cx};
use crate::effect::Ticket;
use crate::options::PASS_ON_DEADLINE;
use crate::{Answer, Grant, Message, Route};

/// How far a member is: last durable number and room left.
type Durable = (Seq, u64);

/// By the primary's ticket.
#[derive(Debug, Default)]
pub(super) struct Passing(BTreeMap<Ticket, Ends>);

#[derive(Debug, Default)]
struct Ends {
    own: Option<Durable>,
    next: Option<Option<Durable>>,
}

impl Passing {
    /// What to answer now that this host has an answer of its own: that, when nothing was passed on or it is a
    /// refusal; nothing yet while the next member is asked.
    pub(super) fn stored(&mut self, ticket: Ticket, answer: Answer) -> Option<Answer> {
        let Some(ends) = self.0.get_mut(&ticket) else { return Some(answer) };
        let Answer::Prepared { seq, bytes_free } = answer else {
            self.0.remove(&ticket);
            return Some(answer);
        };
        ends.own = Some((seq, bytes_free));
        self.finish(ticket)
    }

    /// What to answer now that the next member replied, or did not.
    pub(super) fn replied(&mut self, ticket: Ticket, reply: Option<Answer>) -> Option<Answer> {
        let ends = self.0.get_mut(&ticket)?;
        ends.next = Some(match reply {
            Some(Answer::Prepared { seq, bytes_free }) => Some((seq, bytes_free)),
            _ => None,
        });
        self.finish(ticket)
    }

    fn finish(&mut self, ticket: Ticket) -> Option<Answer> {
        let ends = self.0.get(&ticket)?;
        let ((seq, bytes_free), next) = (ends.own?, ends.next?);
        self.0.remove(&ticket);
        Some(Answer::Passed { seq, bytes_free, next })
    }

    /// Everyone who waits.
    pub(super) fn waiting(&self) -> Vec<Ticket> {
        self.0.keys().copied().collect()
    }
}

impl<B: Clone> Group<B> {
    /// Sends a prepare that this host takes itself to the next member of the chain.
    pub(super) fn pass_on(&self, cx: &mut Cx<'_, B>, next: NodeId, grant: Grant, prepare: &Prepare<B>) {
        let message = Message::Prepare {
            group: self.id,
            epoch: self.epoch(),
            grant,
            previous: prepare.previous,
            at: prepare.at,
            commit: prepare.commit,
            route: Route::PassedOn,
            entry: prepare.entry.clone(),
        };
        cx.core.passing.0.insert(prepare.ticket, Ends::default());
        let why = CallFor::PassOn { ticket: prepare.ticket };
        cx.call(next, message, prepare.body.clone(), PASS_ON_DEADLINE, why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICKET: Ticket = Ticket(3);
    const OWN: Answer = Answer::Prepared { seq: Seq(9), bytes_free: 90 };
    const NEXT: Answer = Answer::Prepared { seq: Seq(8), bytes_free: 80 };

    fn passing() -> Passing {
        Passing(BTreeMap::from([(TICKET, Ends::default())]))
    }

    #[test]
    fn the_primary_is_answered_when_both_ends_are_known_in_either_order() {
        let both = Some(Answer::Passed { seq: Seq(9), bytes_free: 90, next: Some((Seq(8), 80)) });
        let mut own_first = passing();
        assert_eq!(own_first.stored(TICKET, OWN), None);
        assert_eq!(own_first.replied(TICKET, Some(NEXT)), both);
        let mut next_first = passing();
        assert_eq!(next_first.replied(TICKET, Some(NEXT)), None);
        assert_eq!(next_first.stored(TICKET, OWN), both);
        assert_eq!((own_first.waiting(), next_first.waiting()), (vec![], vec![]));
    }

    #[test]
    fn a_refusal_waits_for_nobody_and_a_late_reply_is_nobodys() {
        let mut passing = passing();
        assert_eq!(passing.stored(TICKET, Answer::NoGrant), Some(Answer::NoGrant));
        assert_eq!(passing.replied(TICKET, Some(NEXT)), None);
    }

    #[test]
    fn a_next_member_that_refuses_or_is_silent_is_said_not_to_have_answered() {
        for reply in [None, Some(Answer::Full)] {
            let mut passing = passing();
            assert_eq!(passing.stored(TICKET, OWN), None);
            let answer = Answer::Passed { seq: Seq(9), bytes_free: 90, next: None };
            assert_eq!(passing.replied(TICKET, reply), Some(answer));
        }
    }

    #[test]
    fn what_was_not_passed_on_is_answered_at_once() {
        assert_eq!(passing().stored(Ticket(4), OWN), Some(OWN));
    }
}
