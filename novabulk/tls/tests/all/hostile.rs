//! What a peer, or a line between two of ours, may try after the handshake.
use std::cell::RefCell;
use std::rc::Rc;

use futures_lite::future::zip;
use nova_buf::{DmaBuf, SharedBuf};
use nova_device::mem::{MemLane, World};
use nova_device::{Lane, LaneError, Shard};
use novabulk_tls::{RECORDS_PER_KEY, TlsLane};
use proptest::prelude::*;

use super::ends::{body, config, host, pattern, plain, take, tls};

/// A line whose owner keeps what leaves, and changes one of its bytes, counted from when that was armed.
struct Meddler {
    lane: MemLane,
    sent: Rc<RefCell<Vec<u8>>>,
    /// At which byte, and what is done to it.
    at: Rc<RefCell<Option<(usize, Change)>>>,
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Flip(u8),
    Drop,
    Twice,
}

impl Lane for Meddler {
    async fn send(&self, head: &[u8], body: Option<SharedBuf>) -> Result<(), LaneError> {
        let mut bytes = [head, body.as_deref().unwrap_or_default()].concat();
        let at = self.at.borrow_mut().take();
        match at {
            Some((at, change)) if at < bytes.len() => match change {
                Change::Flip(bit) => bytes[at] ^= 1 << (bit % 8),
                Change::Drop => drop(bytes.remove(at)),
                Change::Twice => bytes.insert(at, bytes[at]),
            },
            Some((at, change)) => drop(self.at.replace(Some((at - bytes.len(), change)))),
            None => {}
        }
        self.sent.borrow_mut().extend_from_slice(&bytes);
        self.lane.send(&bytes, None).await
    }

    async fn recv_behind(
        &self,
        into: DmaBuf,
        filled: usize,
        min: usize,
    ) -> (Result<usize, LaneError>, DmaBuf) {
        self.lane.recv_behind(into, filled, min).await
    }

    async fn shutdown(&self) -> Result<(), LaneError> {
        self.lane.shutdown().await
    }
}

/// Sends a payload over a line that changes it at `at`; answers what arrived before the receiver noticed.
fn meddled(at: usize, change: Change, payload: usize) -> (Vec<u8>, Result<(), LaneError>) {
    let world = World::new(7);
    let (one, two) = (host(&world, 1), host(&world, 2));
    let inside = one.clone();
    world.run(&inside, async move {
        let (dialer, listener) =
            (tls(config("one", "ca"), RECORDS_PER_KEY), tls(config("two", "ca"), RECORDS_PER_KEY));
        let (dialled, accepted) = plain(&one, &two).await;
        let armed = Rc::new(RefCell::new(None));
        let meddler = Meddler { lane: dialled, sent: Rc::default(), at: Rc::clone(&armed) };
        let (sender, receiver) =
            zip(dialer.connect(meddler, one.clock()), listener.accept(accepted, two.clock())).await;
        let (sender, receiver): (TlsLane<Meddler>, TlsLane<MemLane>) = (sender.unwrap(), receiver.unwrap());
        armed.replace(Some((at, change)));
        let sending = async {
            // It may end in an error when the receiver hangs up first.
            let _ = sender.send(b"head", Some(body(&one, &pattern(1, payload)))).await;
            let _ = sender.shutdown().await;
            drop(sender);
        };
        let receiving = async {
            let mut got = Vec::new();
            loop {
                let (count, into) = receiver.recv_some(two.pool().try_take(4096).unwrap(), 1).await;
                match count {
                    Ok(count) => got.extend_from_slice(&into[..count]),
                    Err(LaneError::Closed) => break (got, Ok(())),
                    Err(error) => break (got, Err(error)),
                }
            }
        };
        zip(sending, receiving).await.1
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_changed_on_the_way_is_never_handed_out(
        at in 0_usize..70_000,
        change in prop_oneof![any::<u8>().prop_map(Change::Flip), Just(Change::Drop), Just(Change::Twice)],
    ) {
        let payload = 69_000;
        let whole = [b"head".to_vec(), pattern(1, payload)].concat();
        let (got, ended) = meddled(at, change, payload);
        prop_assert!(whole.starts_with(&got), "{} bytes that were not sent", got.len());
        // Behind the last byte nothing was changed.
        prop_assert!(ended.is_err() || got == whole);
        prop_assert!(at >= 69_000 || ended.is_err(), "a change at {} was not noticed", at);
    }
}

#[test]
fn records_of_another_connection_are_none_of_this_one() {
    let world = World::new(8);
    let (one, two) = (host(&world, 1), host(&world, 2));
    let inside = one.clone();
    world.run(&inside, async move {
        let (dialer, listener) =
            (tls(config("one", "ca"), RECORDS_PER_KEY), tls(config("two", "ca"), RECORDS_PER_KEY));
        let (dialled, accepted) = plain(&one, &two).await;
        let recorded = Rc::new(RefCell::new(Vec::new()));
        let recorder = Meddler { lane: dialled, sent: Rc::clone(&recorded), at: Rc::default() };
        let (sender, receiver) =
            zip(dialer.connect(recorder, one.clock()), listener.accept(accepted, two.clock())).await;
        let (sender, receiver) = (sender.unwrap(), receiver.unwrap());
        recorded.borrow_mut().clear();
        sender.send(b"pay 100", None).await.unwrap();
        assert_eq!(take(&two, &receiver, 7).await.unwrap(), b"pay 100");
        // Whoever listens on the line says it once more.
        let again = recorded.borrow().clone();
        sender_below(&sender).send(&again, None).await.unwrap();
        assert_eq!(take(&two, &receiver, 7).await, Err(LaneError::Forged));
        assert_eq!(take(&two, &receiver, 7).await, Err(LaneError::Poisoned), "and is of no further use");
    });
}

fn sender_below(lane: &TlsLane<Meddler>) -> &MemLane {
    &lane.below().lane
}
