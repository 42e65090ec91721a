//! Three hosts that forward to each other in a ring never lock themselves, however small the pools are.
use std::collections::BTreeMap;
use std::time::Duration;

use novabulk_frame::MessageId;
use novabulk_transfer::{Input, Side, Ticket};
use proptest::prelude::*;

use super::pair::{End, Seeded, hello, hop, request};

const NOW: Duration = Duration::from_secs(1);
const HOSTS: usize = 3;
const PER_HOST: u64 = 39;

/// Host `h` dials host `h + 1`: end `2h` is the dialer's, end `2h + 1` the listener's.
struct Ring {
    ends: Vec<End>,
    /// Forwarded ticket on a dialer's end → the request it answers on the host's listening end.
    forwarded: Vec<BTreeMap<Ticket, MessageId>>,
    waiting: Vec<BTreeMap<MessageId, novabulk_transfer::Inbound>>,
    next_ticket: u64,
}

impl Ring {
    fn new(units: u32) -> Self {
        let mut ends = Vec::new();
        for host in 0..HOSTS {
            let target = u64::try_from((host + 1) % HOSTS).unwrap();
            ends.push(End::new(Side::Dialer, hello(u64::try_from(host).unwrap(), [0; 3])));
            ends.push(End::new(Side::Listener, hello(target, [units; 3])));
        }
        for end in &mut ends {
            end.on(NOW, Input::Start);
        }
        Self {
            ends,
            forwarded: vec![BTreeMap::new(); HOSTS],
            waiting: vec![BTreeMap::new(); HOSTS],
            next_ticket: PER_HOST,
        }
    }

    /// The host behind listening end `end` serves one request: the last hop writes, the others forward first.
    fn serve(&mut self, end: usize, which: usize) {
        let host = (end / 2 + 1) % HOSTS;
        let (inbound, body) = self.ends[end].to_serve.swap_remove(which);
        if inbound.hop == hop(2) {
            return self.ends[end].answer(NOW, &inbound, 0);
        }
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        let mut request = request(ticket, inbound.body_bytes, 0);
        request.hop = hop(inbound.hop.number() + 1);
        assert_eq!(body.len(), usize::try_from(inbound.body_bytes).unwrap());
        self.forwarded[host].insert(Ticket(ticket), inbound.id);
        self.waiting[host].insert(inbound.id, inbound);
        self.ends[2 * host].ask(NOW, request);
    }

    /// Answers what was forwarded and has come back.
    fn finish(&mut self, host: usize) {
        let back: Vec<Ticket> = self.forwarded[host]
            .keys()
            .filter(|ticket| self.ends[2 * host].outcomes.contains_key(ticket))
            .copied()
            .collect();
        let listening = 2 * ((host + HOSTS - 1) % HOSTS) + 1;
        for ticket in back {
            let id = self.forwarded[host].remove(&ticket).unwrap();
            let inbound = self.waiting[host].remove(&id).unwrap();
            assert!(self.ends[2 * host].outcomes[&ticket].is_ok(), "a forwarded request failed");
            self.ends[listening].answer(NOW, &inbound, 0);
        }
    }

    fn done(&self, host: usize) -> bool {
        (1..=PER_HOST).all(|ticket| self.ends[2 * host].settled.contains(&Ticket(ticket)))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn a_ring_of_forwarders_never_locks(seed: u64) {
        let mut random = Seeded::new(seed);
        let mut ring = Ring::new(2);
        let mut asked = [0; HOSTS];
        let mut steps = 0;
        while !(0..HOSTS).all(|host| ring.done(host)) {
            steps += 1;
            prop_assert!(steps < 300_000, "seed {}: the ring has locked", seed);
            let end = random.below(2 * HOSTS);
            match random.below(8) {
                0..=2 => ring.ends[end].written(NOW),
                3..=5 => {
                    if let Some(frame) = ring.ends[end].wire.pop_front() {
                        ring.ends[end ^ 1].receive(NOW, &frame);
                    }
                }
                6 if end.is_multiple_of(2) && asked[end / 2] < PER_HOST => {
                    asked[end / 2] += 1;
                    let bytes = u32::try_from(random.below(262_144)).unwrap() + 1;
                    ring.ends[end].ask(NOW, request(asked[end / 2], bytes, 0));
                }
                _ => {
                    let waiting = ring.ends[end].to_serve.len();
                    if waiting > 0 {
                        ring.serve(end, random.below(waiting));
                    }
                    ring.finish(end / 2);
                }
            }
        }
        for end in &ring.ends {
            prop_assert_eq!(end.closed, None);
        }
    }
}
