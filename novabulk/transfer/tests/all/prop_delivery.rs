//! Whatever the order of events, every message arrives exactly once and unchanged.
use std::time::Duration;

use nova_units::Priority;
use novabulk_transfer::{CloseReason, Failure, Input, Ticket};
use proptest::prelude::*;

use super::pair::{End, Seeded, hop, joined, pattern, request, settle};

const NOW: Duration = Duration::from_secs(1);

fn body_bytes(random: &mut Seeded) -> u32 {
    let bound = match random.below(10) {
        0..=3 => 1,
        4..=6 => 5_000,
        7 | 8 => 200_000,
        _ => 3_000_000,
    };
    u32::try_from(random.below(bound)).unwrap()
}

/// One event, chosen at random among those that are possible.
fn step(ends: &mut [End; 2], random: &mut Seeded, asked: &mut [u64; 2], per_side: u64, cancels: bool) {
    let at = random.below(2);
    match random.below(if cancels { 13 } else { 12 }) {
        0..=3 => ends[at].written(NOW),
        4..=8 => {
            if let Some(frame) = ends[at].wire.pop_front() {
                ends[1 - at].receive(NOW, &frame);
            }
        }
        9 if asked[at] < per_side => {
            asked[at] += 1;
            let mut request = request(asked[at], body_bytes(random), body_bytes(random));
            request.hop = hop(u8::try_from(random.below(3)).unwrap());
            request.priority = Priority::ALL[random.below(5)];
            ends[at].ask(NOW, request);
        }
        10 | 11 if !ends[at].to_serve.is_empty() => {
            let which = random.below(ends[at].to_serve.len());
            let (inbound, body) = ends[at].to_serve.swap_remove(which);
            let ticket = u64::from_be_bytes(inbound.head[..8].try_into().unwrap());
            assert_eq!(body, pattern(ticket, inbound.body_bytes), "the body of ticket {ticket} changed");
            if random.below(2) == 0 {
                ends[at].on(NOW, Input::Release(inbound.id));
            }
            ends[at].answer(NOW, &inbound, inbound.reply_max);
        }
        12 if asked[at] > 0 => {
            let ticket = Ticket(random.next() % asked[at] + 1);
            ends[at].on(NOW, Input::Cancel(ticket));
        }
        _ => {}
    }
}

fn run(seed: u64, grants: [u32; 3], per_side: u64, cancels: bool) -> [End; 2] {
    let mut random = Seeded::new(seed);
    let mut ends = joined(grants);
    let mut asked = [0; 2];
    let mut steps = 0;
    while ends.iter().any(|end| u64::try_from(end.settled.len()).unwrap() < per_side) {
        step(&mut ends, &mut random, &mut asked, per_side, cancels);
        steps += 1;
        assert!(steps < 200_000, "seed {seed}: no progress");
    }
    ends
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]

    #[test]
    fn every_request_is_served_once_and_answered_once(seed: u64, units in 14u32..20) {
        let per_side = 40;
        let mut ends = run(seed, [units; 3], per_side, false);
        for end in &ends {
            prop_assert_eq!(end.closed, None);
            prop_assert_eq!(end.served.len(), 40);
            for (ticket, outcome) in &end.outcomes {
                let (head, body) = outcome.as_ref().unwrap();
                prop_assert_eq!(&head[..], &ticket.0.to_be_bytes());
                prop_assert_eq!(body, &pattern(!ticket.0, u32::try_from(body.len()).unwrap()));
            }
        }
        settle(&mut ends, NOW);
        prop_assert_eq!(ends[0].machine.held_bytes() + ends[1].machine.held_bytes(), 0);
    }

    #[test]
    fn cancelled_requests_leave_the_connection_whole(seed: u64) {
        let per_side = 60;
        let mut ends = run(seed, [14, 15, 16], per_side, true);
        for end in &ends {
            prop_assert_eq!(end.closed, None);
            for outcome in end.outcomes.values() {
                prop_assert!(matches!(outcome, Ok(_) | Err(Failure::Cancelled)), "{:?}", outcome);
            }
        }
        settle(&mut ends, NOW);
        for end in &mut ends {
            prop_assert!(end.machine.held_bytes() == 0 && end.machine.serving_count() == 0);
            end.on(NOW, Input::Drain);
        }
        settle(&mut ends, NOW);
        prop_assert!(ends.iter().any(|end| end.closed == Some(CloseReason::Drained)));
    }
}
