//! A secure lane carries bytes as the one below does.
use futures_lite::future::zip;
use nova_buf::{HugePages, Pool, PoolOptions};
use nova_device::mem::World;
use nova_device::sync::join_all;
use nova_device::{Lane, LaneError, Shard};
use novabulk_tls::{RECORD_PLAIN_BYTES_MAX, RECORDS_PER_KEY, Tls, TlsOptions};

use super::ends::{between, body, config, host, pattern, plain, room, take, tls};

#[test]
fn heads_and_bodies_of_every_size_arrive_whole_and_in_order() {
    between(RECORDS_PER_KEY, |shard, one, two| async move {
        let full = RECORD_PLAIN_BYTES_MAX;
        let heads = [1, 16, 300, full - 1, full, full + 1, 65_600];
        let bodies = [0, 1, 4096, full, 3 * full + 7, (1 << 20) - 4096, 1 << 20];
        for (round, (head, payload)) in heads.iter().flat_map(|h| bodies.map(|b| (*h, b))).enumerate() {
            let (head, payload) = (pattern(round as u64, head), pattern(round as u64 + 1000, payload));
            let sent = (!payload.is_empty()).then(|| body(&shard, &payload));
            let received = async {
                let first = take(&shard, &two, head.len()).await.unwrap();
                let second = if payload.is_empty() {
                    Vec::new()
                } else {
                    take(&shard, &two, payload.len()).await.unwrap()
                };
                (first, second)
            };
            let (sent, (first, second)) = zip(one.send(&head, sent), received).await;
            sent.unwrap();
            assert!(first == head && second == payload, "{} and {} bytes", head.len(), payload.len());
        }
    });
}

#[test]
fn a_receiver_may_ask_for_any_piece_of_what_comes() {
    between(RECORDS_PER_KEY, |shard, one, two| async move {
        let whole = pattern(5, 300_000);
        let sending = one.send(&[], Some(body(&shard, &whole)));
        let receiving = async {
            let mut got = Vec::new();
            // Odd pieces, some behind what is there already, with and without more than was asked for.
            for (filled, min, len) in
                [(0, 1, 1), (3, 5, 8), (0, 16, 16), (10, 1, 5000), (0, 16_385, 16_400)].into_iter().cycle()
            {
                let left = whole.len() - got.len();
                if left == 0 {
                    break;
                }
                let min = usize::min(min, left);
                let (count, into) = two.recv_behind(room(&shard, len), filled, min).await;
                let count = count.unwrap();
                assert!((min..=len - filled).contains(&count));
                got.extend_from_slice(&into[filled..filled + count]);
            }
            got
        };
        let (sent, got) = zip(sending, receiving).await;
        sent.unwrap();
        assert!(got == whole);
    });
}

#[test]
fn both_directions_work_at_once() {
    between(RECORDS_PER_KEY, |shard, one, two| async move {
        let (there, back) = (pattern(1, 1 << 20), pattern(2, 1 << 20));
        let sends =
            zip(one.send(b"->", Some(body(&shard, &there))), two.send(b"<-", Some(body(&shard, &back))));
        let receives = zip(take(&shard, &two, 2 + 400_000), take(&shard, &one, 2 + 400_000));
        let rest = async {
            let (first, second) = receives.await;
            let left = (1 << 20) - 400_000;
            let (third, fourth) = zip(take(&shard, &two, left), take(&shard, &one, left)).await;
            ([first.unwrap(), third.unwrap()].concat(), [second.unwrap(), fourth.unwrap()].concat())
        };
        let ((sent, answered), (got, had)) = zip(sends, rest).await;
        sent.and(answered).unwrap();
        assert!(got[..2] == *b"->" && got[2..] == there);
        assert!(had[..2] == *b"<-" && had[2..] == back);
    });
}

#[test]
fn keys_change_after_their_records_and_nothing_is_lost() {
    between(3, |shard, one, two| async move {
        let whole = pattern(9, 1 << 20);
        for round in 0..4 {
            let (sent, got) =
                zip(one.send(b"", Some(body(&shard, &whole))), take(&shard, &two, 1 << 20)).await;
            sent.unwrap();
            assert!(got.unwrap() == whole, "round {round}");
            let (sent, got) = zip(two.send(b"short", None), take(&shard, &one, 5)).await;
            sent.unwrap();
            assert_eq!(got.unwrap(), b"short");
        }
    });
}

#[test]
fn an_end_in_order_is_told_from_one_that_nobody_announced() {
    between(RECORDS_PER_KEY, |shard, one, two| async move {
        one.send(b"last words", None).await.unwrap();
        one.shutdown().await.unwrap();
        assert_eq!(take(&shard, &two, 10).await.unwrap(), b"last words");
        assert_eq!(take(&shard, &two, 1).await, Err(LaneError::Closed));
        assert_eq!(take(&shard, &two, 1).await, Err(LaneError::Closed), "and stays closed");
        assert_eq!(one.send(b"more", None).await, Err(LaneError::Poisoned));
        drop(two);
        let ended = take(&shard, &one, 1).await;
        assert!(matches!(ended, Err(LaneError::Broken { .. })), "{ended:?}");
    });
}

#[test]
fn what_was_given_up_half_way_is_of_no_further_use() {
    between(RECORDS_PER_KEY, |shard, one, two| async move {
        // Longer than what lies between the ends, so that it cannot be through.
        let sending = one.send(b"", Some(body(&shard, &pattern(3, 1 << 20))));
        assert!(futures_lite::future::poll_once(sending).await.is_none());
        assert_eq!(one.send(b"next", None).await, Err(LaneError::Poisoned));
        let receiving = one.recv_exact(room(&shard, 8), 8);
        assert!(futures_lite::future::poll_once(receiving).await.is_none());
        assert_eq!(take(&shard, &one, 1).await, Err(LaneError::Poisoned));
        drop(two);
    });
}

#[test]
fn a_connection_that_finds_no_memory_ends_and_does_not_wait_for_ever() {
    let world = World::new(11);
    let (one, two) = (host(&world, 1), host(&world, 2));
    let inside = one.clone();
    world.run(&inside, async move {
        let dialer = tls(config("one", "ca"), RECORDS_PER_KEY);
        // The least there is: a handful of stages for payload.
        let memory = Pool::new(PoolOptions { bytes: 2 << 20, huge: HugePages::Never }).unwrap();
        let listener = Tls::new(config("two", "ca"), TlsOptions::default(), memory);
        let (mut held, mut refused) = (Vec::new(), 0);
        for round in 0..24 {
            let (dialled, accepted) = plain(&one, &two).await;
            let ends =
                zip(dialer.connect(dialled, one.clock()), listener.accept(accepted, two.clock())).await;
            let (from, to) = (ends.0.unwrap(), ends.1.unwrap());
            let sent = pattern(round, 20_000);
            let (_, got) = zip(from.send(b"", Some(body(&one, &sent))), take(&two, &to, 20_000)).await;
            match got {
                Ok(got) => {
                    assert!(got == sent);
                    held.push((from, to));
                }
                Err(error) => {
                    assert!(matches!(error, LaneError::NoResources { .. }), "{error}");
                    refused += 1;
                }
            }
        }
        assert!(held.len() >= 10 && refused > 0, "{} held, {refused} refused", held.len());
    });
}

#[test]
fn hosts_whose_connections_all_receive_do_not_wait_for_each_other() {
    let world = World::new(12);
    let (one, two) = (host(&world, 1), host(&world, 2));
    let inside = one.clone();
    world.run(&inside, async move {
        // Two buffers of the size of a stage in each, and one larger.
        let little = |name| {
            let memory = Pool::new(PoolOptions { bytes: 4 << 20, huge: HugePages::Never }).unwrap();
            Tls::new(config(name, "ca"), TlsOptions::default(), memory)
        };
        let (dialer, listener) = (little("one"), little("two"));
        let mut pairs = Vec::new();
        for _ in 0..6 {
            let (dialled, accepted) = plain(&one, &two).await;
            let ends =
                zip(dialer.connect(dialled, one.clock()), listener.accept(accepted, two.clock())).await;
            pairs.push((ends.0.unwrap(), ends.1.unwrap()));
        }
        let whole = pattern(4, 1 << 20);
        let conversations = pairs.iter().map(async |(from, to)| {
            let receives = zip(take(&one, from, 1 << 20), take(&two, to, 1 << 20));
            let sends = zip(from.send(b"", Some(body(&one, &whole))), to.send(b"", Some(body(&two, &whole))));
            let ((back, there), (sent, answered)) = zip(receives, sends).await;
            sent.and(answered).unwrap();
            back.unwrap() == whole && there.unwrap() == whole
        });
        assert_eq!(join_all(conversations).await, [true; 6]);
    });
}
