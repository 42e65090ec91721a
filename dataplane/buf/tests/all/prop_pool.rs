use std::collections::BTreeMap;

use nova_buf::{CLASS_BYTES, DmaBuf, HugePages, Pool, PoolOptions, SharedBuf, TAKE_BYTES_MAX};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Take(usize),
    Drop(usize),
    Share(usize, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = prop_oneof![1..=CLASS_BYTES[0], 1..=CLASS_BYTES[1], 1..=CLASS_BYTES[2], 1..=TAKE_BYTES_MAX];
    prop_oneof![
        4 => bytes.prop_map(Step::Take),
        3 => any::<usize>().prop_map(Step::Drop),
        1 => (any::<usize>(), 1..4u8).prop_map(|(index, owners)| Step::Share(index, owners)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    /// Lent buffers never overlap, keep what their owner wrote, and all come back.
    #[test]
    fn lent_buffers_are_disjoint_and_all_return(steps in prop::collection::vec(step(), 1..200)) {
        let pool = Pool::new(PoolOptions { bytes: 4 << 20, huge: HugePages::Never }).unwrap();
        let mut lent: Vec<(u8, DmaBuf)> = Vec::new();
        let mut shared: Vec<(u8, SharedBuf)> = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            let mark = u8::try_from(number % 251).unwrap();
            match step {
                Step::Take(bytes) => if let Ok(mut buf) = pool.try_take(bytes) {
                    prop_assert_eq!(buf.len(), bytes);
                    buf[0] = mark;
                    buf[bytes - 1] = mark;
                    lent.push((mark, buf));
                },
                Step::Drop(index) => if !lent.is_empty() {
                    lent.swap_remove(index % lent.len());
                },
                Step::Share(index, owners) => if !lent.is_empty() {
                    let (mark, buf) = lent.swap_remove(index % lent.len());
                    let buf = buf.freeze();
                    shared.extend((1..owners).map(|_| (mark, buf.clone())));
                    shared.push((mark, buf));
                },
            }
            let mut spans: BTreeMap<usize, usize> = BTreeMap::new();
            for (mark, buf) in &lent {
                prop_assert_eq!((buf[0], *buf.last().unwrap()), (*mark, *mark));
                prop_assert!(spans.insert(buf.as_ptr().addr(), buf.capacity()).is_none());
            }
            for (mark, buf) in &shared {
                prop_assert_eq!((buf[0], *buf.last().unwrap()), (*mark, *mark));
            }
            let mut end = 0;
            for (start, bytes) in spans {
                prop_assert!(start >= end, "two lent buffers overlap");
                end = start + bytes;
            }
        }
        lent.clear();
        shared.clear();
        prop_assert_eq!(pool.free_bytes(), pool.bytes());
    }
}
