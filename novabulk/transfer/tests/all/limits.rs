//! Every limit holds, on both sides.
use std::time::Duration;

use nova_units::Priority;
use novabulk_frame::{
    Control, FrameHeader, FrameKind, Hello, LinkRole, Message, MessageId, MessageKind, ResetReason, StreamId,
};
use novabulk_transfer::{
    ANSWER_GRACE, CloseReason, DRAIN_TIMEOUT, Failure, HELLO_TIMEOUT, Input, REQUESTS_MAX, Request, Side,
    Ticket, Violation,
};

use super::pair::{BODY_BYTES_MAX, End, hello, hop, joined, request, settle};

const NOW: Duration = Duration::from_secs(1);

fn opened(grants: [u32; 3]) -> [End; 2] {
    let mut ends = joined(grants);
    settle(&mut ends, NOW);
    ends
}

fn failure(end: &End, ticket: u64) -> Failure {
    *end.outcomes[&Ticket(ticket)].as_ref().unwrap_err()
}

fn header(stream: u32, more: bool) -> FrameHeader {
    FrameHeader { kind: FrameKind::Control, more, end: false, stream: StreamId(stream), payload_bytes: 24 }
}

fn message(id: u64, body_bytes: u32) -> Control {
    Control::Message(Message {
        kind: MessageKind::Request,
        hop: hop(0),
        priority: Priority::P2,
        id: MessageId(id),
        body_bytes,
        reply_max: 0,
        deadline: Duration::from_secs(1),
        head: Vec::new(),
    })
}

#[test]
fn the_129th_request_is_refused_here_and_places_are_kept_for_later_hops_and_p0() {
    let mut ends = opened([4; 3]);
    let mut ticket = 0;
    let mut limits = Vec::new();
    for number in 0..3 {
        for priority in [Priority::P2, Priority::P0] {
            loop {
                ticket += 1;
                ends[0].ask(NOW, Request { hop: hop(number), priority, ..request(ticket, 0, 0) });
                if let Some(Err(Failure::Busy { requests_max })) = ends[0].outcomes.get(&Ticket(ticket)) {
                    assert_eq!(ends[0].machine.asked_count(), *requests_max);
                    break limits.push(*requests_max);
                }
            }
        }
    }
    assert_eq!(limits, [88, 96, 104, 112, 120, REQUESTS_MAX]);
    settle(&mut ends, NOW);
    assert_eq!(ends[1].to_serve.len(), REQUESTS_MAX);
}

#[test]
fn a_peer_with_129_requests_is_closed() {
    let mut ends = opened([4; 3]);
    for id in 1..=129 {
        ends[1].on(NOW, Input::Control(header(1, false), message(id, 0)));
    }
    assert_eq!(ends[1].closed, Some(CloseReason::Violation(Violation::TooManyRequests)));
}

#[test]
fn unsent_refusals_count_like_unanswered_requests() {
    let mut ends = opened([4; 3]);
    // The lane takes one more frame and then stands still.
    ends[1].on(NOW, Input::Drain);
    for id in 1..=200 {
        ends[1].on(NOW, Input::Control(header(1, false), message(id, 0)));
    }
    assert_eq!(ends[1].closed, Some(CloseReason::Violation(Violation::TooManyRequests)));
}

#[test]
fn more_body_than_credit_closes_before_a_byte_of_it_is_placed() {
    let mut ends = opened([4; 3]);
    ends[1].on(NOW, Input::Control(header(1, true), message(1, 1 << 20)));
    assert_eq!(ends[1].closed, None);
    ends[1].on(NOW, Input::Control(header(3, true), message(2, 1)));
    let overrun = Violation::Overrun { hop: hop(0), bytes: 4096 };
    assert_eq!(ends[1].closed, Some(CloseReason::Violation(overrun)));
}

#[test]
fn a_body_that_can_never_go_is_refused_here() {
    let mut ends = opened([2; 3]);
    ends[0].ask(NOW, request(1, 256 << 10, 0));
    ends[0].ask(NOW, request(2, (256 << 10) + 1, 0));
    assert_eq!(failure(&ends[0], 2), Failure::BodyTooLong { bytes: (256 << 10) + 1, bytes_max: 256 << 10 });
    settle(&mut ends, NOW);
    assert_eq!(ends[1].to_serve.len(), 1);
}

#[test]
fn a_body_over_the_limit_of_hello_closes() {
    let mut ends = opened([100; 3]);
    ends[1].on(NOW, Input::Control(header(1, true), message(1, BODY_BYTES_MAX + 1)));
    let violation = Violation::BodyTooLong { bytes: BODY_BYTES_MAX + 1, bytes_max: BODY_BYTES_MAX };
    assert_eq!(ends[1].closed, Some(CloseReason::Violation(violation)));
}

#[test]
fn a_slow_server_blocks_the_sender_and_says_so_once() {
    let mut ends = opened([5; 3]);
    for ticket in 1..=20 {
        ends[0].ask(NOW, request(ticket, 256 << 10, 0));
    }
    settle(&mut ends, NOW);
    assert_eq!(ends[1].to_serve.len(), 5, "as many as the pool holds");
    for _ in 0..15 {
        let (inbound, _) = ends[1].to_serve.pop().unwrap();
        ends[1].answer(NOW, &inbound, 0);
        settle(&mut ends, NOW);
        assert_eq!(ends[1].to_serve.len(), 5, "each that ends lets one in");
    }
}

#[test]
fn a_blocked_hop_holds_up_neither_other_hops_nor_small_talk() {
    let mut ends = opened([5; 3]);
    for ticket in 1..=10 {
        ends[0].ask(NOW, request(ticket, 1 << 20, 0));
    }
    ends[0].ask(NOW, Request { hop: hop(1), ..request(11, 1 << 20, 0) });
    ends[0].ask(NOW, request(12, 0, 0));
    settle(&mut ends, NOW);
    let served: Vec<u8> = ends[1].to_serve.iter().map(|(inbound, _)| inbound.head[7]).collect();
    assert_eq!(served, [1, 11, 12]);
}

#[test]
fn p0_overtakes_a_long_body_between_its_frames() {
    let mut ends = opened([20; 3]);
    ends[0].ask(NOW, request(1, 3 << 20, 0));
    ends[0].ask(NOW, Request { priority: Priority::P0, ..request(2, 0, 0) });
    settle(&mut ends, NOW);
    let served: Vec<u8> = ends[1].to_serve.iter().map(|(inbound, _)| inbound.head[7]).collect();
    assert_eq!(served, [2, 1]);
}

#[test]
fn a_late_answer_frees_its_place_and_one_that_never_comes_closes() {
    let mut ends = opened([4; 3]);
    for ticket in 1..=2 {
        ends[0].ask(NOW, Request { deadline: NOW + Duration::from_secs(2), ..request(ticket, 100, 100) });
    }
    settle(&mut ends, NOW);
    let late = NOW + Duration::from_secs(2);
    assert_eq!(ends[0].machine.next_timer(), Some(late));
    ends[0].on(late, Input::Tick);
    assert_eq!(failure(&ends[0], 1), Failure::Deadline { sent: true });
    assert_eq!(ends[0].machine.asked_count(), 2, "the peer still owes the answers");
    settle(&mut ends, late);
    let (inbound, _) = ends[1].to_serve.remove(0);
    ends[1].answer(late, &inbound, 100);
    settle(&mut ends, late);
    assert_eq!(ends[0].settled, [Ticket(1)]);
    ends[0].on(late + ANSWER_GRACE, Input::Tick);
    assert_eq!(ends[0].closed, Some(CloseReason::Stuck));
    assert_eq!(ends[0].settled, [Ticket(1), Ticket(2)]);
}

#[test]
fn an_answer_over_the_reserved_buffer_becomes_a_reset() {
    let mut ends = opened([4; 3]);
    ends[0].ask(NOW, request(1, 0, 10));
    settle(&mut ends, NOW);
    let (inbound, _) = ends[1].to_serve.remove(0);
    ends[1].answer(NOW, &inbound, 11);
    settle(&mut ends, NOW);
    assert_eq!(failure(&ends[0], 1), Failure::Reset(ResetReason::ReplyTooLong));
    assert!(ends[1].sends.is_empty(), "the answer's body is dropped");
}

#[test]
fn draining_ends_what_was_begun_and_turns_the_rest_away_untouched() {
    let mut ends = opened([4; 3]);
    ends[0].ask(NOW, request(1, 100, 0));
    settle(&mut ends, NOW);
    ends[1].on(NOW, Input::Drain);
    // Crosses the GOAWAY on the way.
    ends[0].ask(NOW, request(2, 100, 0));
    settle(&mut ends, NOW);
    ends[0].ask(NOW, request(3, 100, 0));
    assert_eq!(failure(&ends[0], 2), Failure::GoingAway);
    assert_eq!(failure(&ends[0], 3), Failure::GoingAway);
    assert!(failure(&ends[0], 2).is_untouched());
    let (inbound, _) = ends[1].to_serve.remove(0);
    ends[1].answer(NOW, &inbound, 0);
    settle(&mut ends, NOW);
    assert!(ends[0].outcomes[&Ticket(1)].is_ok());
    assert_eq!(ends[0].closed, Some(CloseReason::Drained));
    ends[1].on(NOW, Input::LaneLost);
    assert_eq!(ends[1].closed, Some(CloseReason::Drained));
}

#[test]
fn draining_has_an_end() {
    let mut ends = opened([4; 3]);
    ends[0].ask(NOW, request(1, 0, 0));
    settle(&mut ends, NOW);
    ends[1].on(NOW, Input::Drain);
    settle(&mut ends, NOW);
    for end in &mut ends {
        end.on(NOW + DRAIN_TIMEOUT, Input::Tick);
        assert_eq!(end.closed, Some(CloseReason::DrainTimeout));
    }
    assert_eq!(failure(&ends[0], 1), Failure::Closed { sent: true });
}

#[test]
fn without_hello_nothing_is_heard_and_five_seconds_are_all() {
    let mut silent = End::new(Side::Dialer, hello(1, [4; 3]));
    silent.on(NOW, Input::Start);
    silent.ask(NOW, request(1, 0, 0));
    silent.on(NOW + HELLO_TIMEOUT, Input::Tick);
    assert_eq!(silent.closed, Some(CloseReason::HelloTimeout));
    assert_eq!(failure(&silent, 1), Failure::Closed { sent: false });

    let mut rude = End::new(Side::Listener, hello(1, [4; 3]));
    rude.on(NOW, Input::Start);
    rude.on(NOW, Input::Control(header(1, false), message(1, 0)));
    assert_eq!(rude.closed, Some(CloseReason::Violation(Violation::HelloMissing)));
}

#[test]
fn a_listener_takes_the_dialers_role_and_grants_nothing_for_control() {
    let control = Hello { role: LinkRole::Control, ..hello(1, [0; 3]) };
    let mut ends = [End::new(Side::Dialer, control), End::new(Side::Listener, hello(2, [5; 3]))];
    for end in &mut ends {
        end.on(NOW, Input::Start);
    }
    settle(&mut ends, NOW);
    let peer = ends[0].machine.peer().unwrap();
    assert_eq!((peer.role, peer.grants), (LinkRole::Control, [0; 3]));
    ends[0].ask(NOW, request(1, 0, 0));
    ends[0].ask(NOW, request(2, 1, 0));
    assert_eq!(failure(&ends[0], 2), Failure::BodyTooLong { bytes: 1, bytes_max: 0 });
    settle(&mut ends, NOW);
    assert_eq!(ends[1].to_serve.len(), 1);
}

#[test]
fn a_lost_lane_fails_every_request_once() {
    let mut ends = opened([5; 3]);
    for ticket in 1..=5 {
        ends[0].ask(NOW, request(ticket, 1 << 20, 0));
    }
    settle(&mut ends, NOW);
    ends[0].on(NOW, Input::LaneLost);
    assert_eq!(failure(&ends[0], 1), Failure::Closed { sent: true });
    assert_eq!(failure(&ends[0], 5), Failure::Closed { sent: false });
    assert_eq!(ends[0].settled.len(), 5);
    ends[0].ask(NOW, request(6, 0, 0));
    assert_eq!(failure(&ends[0], 6), Failure::Closed { sent: false });
}
