//! One-use tickets: the agent tells novad whom to let in, novad lets each in once.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// Tickets that may be out at once; the oldest are the first to expire, so a flood harms the flooder.
const TICKETS_MAX: usize = 1024;
/// A program may be faster than its ticket, which comes by another way: it waits this long for it.
const ARRIVES_WITHIN: Duration = Duration::from_millis(500);

/// The tickets that are good now. Shared between the shard, which hears of them, and the door, which takes them.
#[derive(Debug, Default)]
pub(crate) struct Tickets {
    open: Mutex<HashMap<[u8; 16], Ticket>>,
    added: Condvar,
}

#[derive(Debug)]
struct Ticket {
    uid: u32,
    until: Instant,
}

impl Tickets {
    /// From now on, and for `valid`, the user may come in once with this ticket.
    pub(crate) fn admit(&self, ticket: [u8; 16], uid: u32, valid: Duration, now: Instant) {
        let mut open = self.open.lock().expect("no holder of this lock panics");
        open.retain(|_, ticket| ticket.until > now);
        if open.len() < TICKETS_MAX {
            open.insert(ticket, Ticket { uid, until: now + valid });
            self.added.notify_all();
        }
    }

    /// Uses a ticket up; waits a moment for one that is still on its way.
    pub(crate) fn redeem(&self, ticket: &[u8; 16], uid: u32, now: Instant) -> Result<(), &'static str> {
        let open = self.open.lock().expect("no holder of this lock panics");
        let unknown = |open: &mut HashMap<[u8; 16], Ticket>| !open.contains_key(ticket);
        let (mut open, _) = self
            .added
            .wait_timeout_while(open, ARRIVES_WITHIN, unknown)
            .expect("no holder of this lock panics");
        match open.remove(ticket) {
            None => Err("the ticket is not known or was used: ask the agent for another"),
            Some(found) if found.until <= now => Err("the ticket has expired: ask the agent for another"),
            Some(found) if found.uid != uid => Err("the ticket was given to another user"),
            Some(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_once_for_its_user_and_for_its_time() {
        let (tickets, now) = (Tickets::default(), Instant::now());
        let valid = Duration::from_secs(1);
        for ticket in [[1; 16], [2; 16], [3; 16]] {
            tickets.admit(ticket, 10, valid, now);
        }
        assert_eq!(tickets.redeem(&[1; 16], 10, now), Ok(()));
        assert!(tickets.redeem(&[1; 16], 10, now).is_err(), "used up");
        assert!(tickets.redeem(&[2; 16], 11, now).is_err(), "of another user");
        assert!(tickets.redeem(&[3; 16], 10, now + valid).is_err(), "expired");
        assert!(tickets.redeem(&[4; 16], 10, now).is_err(), "never given out");
    }

    #[test]
    fn a_flood_of_tickets_does_not_grow_memory() {
        let (tickets, now) = (Tickets::default(), Instant::now());
        for number in 0..2 * TICKETS_MAX as u128 {
            tickets.admit(number.to_le_bytes(), 0, Duration::from_secs(1), now);
        }
        assert_eq!(tickets.open.lock().unwrap().len(), TICKETS_MAX);
    }
}
