//! Two implementations of records: ours, and rustls as the reference. Whatever one says, the other understands.
use futures_lite::future::zip;
use nova_device::mem::MemShard;
use nova_device::{Lane, LaneError};
use novabulk_tls::{RECORD_PLAIN_BYTES_MAX, RECORDS_PER_KEY, SealedBy, Tls};
use proptest::prelude::*;

use super::ends::{Ends, body, config, pattern, room, shaken, take, tls_by};

const BOTH: [SealedBy; 2] = [SealedBy::Here, SealedBy::Rustls];

/// What is said: a head and a body, and in how long pieces it is taken.
#[derive(Clone, Debug)]
struct Words {
    head: usize,
    body: usize,
    piece: usize,
}

fn words() -> impl Strategy<Value = Words> {
    let full = RECORD_PLAIN_BYTES_MAX;
    let lengths = prop_oneof![0..40_usize, 4000..4200_usize, full - 2..full + 2, 0..400_000_usize];
    let pieces = prop_oneof![1..64_usize, Just(4096_usize), 10_000..300_000_usize, Just(1_usize << 20)];
    (1..700_usize, lengths, pieces).prop_map(|(head, body, piece)| Words { head, body, piece })
}

fn ends(dialer: SealedBy, listener: SealedBy, records_per_key: u64) -> (Tls, Tls) {
    (
        tls_by(config("one", "ca"), records_per_key, dialer),
        tls_by(config("two", "ca"), records_per_key, listener),
    )
}

/// Says all of `said` over `from` and takes it from `to` in its pieces; answers whether it came as it was.
async fn say(shard: &MemShard, from: &impl Lane, to: &impl Lane, said: &[Words]) -> bool {
    let sending = async {
        for (round, words) in (0_u64..).zip(said) {
            let payload = pattern(round + 100, words.body);
            let payload = (words.body > 0).then(|| body(shard, &payload));
            from.send(&pattern(round, words.head), payload).await.unwrap();
        }
    };
    let receiving = async {
        for (round, words) in (0_u64..).zip(said) {
            let whole = [pattern(round, words.head), pattern(round + 100, words.body)].concat();
            for piece in whole.chunks(words.piece) {
                let (received, into) = to.recv_exact(room(shard, piece.len()), piece.len()).await;
                received.unwrap();
                if into[..] != *piece {
                    return false;
                }
                // Whole pages come with the sums of each.
                let wanted: Vec<u32> = piece.chunks(4096).map(crc32fast::hash).collect();
                let sums = into.page_sums().map(|sums| sums.iter().map(|sum| sum.0).collect());
                if sums != piece.len().is_multiple_of(4096).then_some(wanted) {
                    return false;
                }
            }
        }
        true
    };
    zip(sending, receiving).await.1
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn either_implementation_understands_the_other_in_both_directions(
        there in proptest::collection::vec(words(), 1..5),
        back in proptest::collection::vec(words(), 1..5),
        records_per_key in prop_oneof![1..6_u64, Just(RECORDS_PER_KEY)],
    ) {
        for (dialer, listener) in BOTH.into_iter().flat_map(|one| BOTH.map(|other| (one, other))) {
            let (there, back) = (there.clone(), back.clone());
            let (one, two) = ends(dialer, listener, records_per_key);
            let whole = shaken(one, two, move |shard, (one, two): Ends| async move {
                let (one, two) = (one.unwrap(), two.unwrap());
                zip(say(&shard, &one, &two, &there), say(&shard, &two, &one, &back)).await
            });
            prop_assert_eq!(whole, (true, true), "{:?} and {:?}", dialer, listener);
        }
    }
}

#[test]
fn an_end_in_order_is_an_end_whoever_says_it_to_whom() {
    for (dialer, listener) in BOTH.into_iter().flat_map(|one| BOTH.map(|other| (one, other))) {
        let (one, two) = ends(dialer, listener, RECORDS_PER_KEY);
        shaken(one, two, |shard, (one, two): Ends| async move {
            let (one, two) = (one.unwrap(), two.unwrap());
            one.send(b"last words", None).await.unwrap();
            one.shutdown().await.unwrap();
            assert_eq!(take(&shard, &two, 10).await.unwrap(), b"last words");
            assert_eq!(take(&shard, &two, 1).await, Err(LaneError::Closed));
            two.shutdown().await.unwrap();
            assert_eq!(take(&shard, &one, 1).await, Err(LaneError::Closed));
            assert_eq!(one.send(b"more", None).await, Err(LaneError::Poisoned));
        });
    }
}

#[test]
fn ours_copies_a_small_part_of_what_the_reference_does() {
    let copied = BOTH.map(|by| {
        let (one, two) = ends(by, by, RECORDS_PER_KEY);
        let counting = (one.clone(), two.clone());
        shaken(one, two, |shard, (one, two): Ends| async move {
            let (one, two) = (one.unwrap(), two.unwrap());
            let payload = pattern(1, 1 << 20);
            let sending = one.send(b"head", Some(body(&shard, &payload)));
            let receiving = async {
                take(&shard, &two, 4).await.unwrap();
                take(&shard, &two, 1 << 20).await.unwrap()
            };
            let (sent, got) = zip(sending, receiving).await;
            sent.unwrap();
            assert!(got == payload);
        });
        let (sent, received) = (counting.0.counters(), counting.1.counters());
        assert_eq!((sent.bytes_sealed, received.bytes_opened), ((1 << 20) + 4, (1 << 20) + 4), "{by:?}");
        (sent.bytes_copied, received.bytes_copied, received.receives)
    });
    let [(sent, received, receives), (sent_by_rustls, received_by_rustls, _)] = copied;
    assert_eq!(sent, 0, "sealed out of the payload, into what is sent");
    // The last record of a buffer that has no byte to spare, and what stands in two stages.
    assert!(received < 3 * RECORD_PLAIN_BYTES_MAX as u64, "{received} bytes");
    assert!(receives <= 8, "{receives} receives");
    assert!(sent_by_rustls > 1 << 20 && received_by_rustls > 1 << 20);
}
