use core::{
    pin::pin,
    task::{Context, Poll, Waker},
};

use nova_units::PageSum;

use super::*;

fn small() -> Pool {
    Pool::new(PoolOptions { bytes: 2 << 20, huge: HugePages::Never }).unwrap()
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_new_pool_is_all_free_and_all_zero() {
    let pool = small();
    assert_eq!((pool.free_bytes(), pool.bytes()), (2 << 20, 2 << 20));
    assert_eq!(pool.backing(), Backing::Pages);
    let buf = pool.try_take(1 << 20).unwrap();
    assert!(buf.iter().all(|&byte| byte == 0));
    assert_eq!(pool.free_bytes(), 1 << 20);
}

#[test]
fn buffers_are_page_aligned_and_as_long_as_asked() {
    let pool = small();
    for bytes in [0, 1, 4096, 5000, 65536, 70000, 1 << 20] {
        let buf = pool.try_take(bytes).unwrap();
        assert_eq!(buf.len(), bytes);
        assert!(buf.as_ptr().addr().is_multiple_of(4096));
        assert!(buf.capacity() >= bytes);
    }
    assert_eq!(pool.free_bytes(), pool.bytes());
}

#[test]
fn an_empty_class_borrows_from_the_next_one_only() {
    let pool = small();
    let [pages, units, ..] = pool.counters();
    let held: Vec<_> = (0..pages.total + units.total).map(|_| pool.try_take(4096).unwrap()).collect();
    assert_eq!(held.last().unwrap().capacity(), 65536);
    assert_eq!(pool.try_take(1).unwrap_err(), Exhausted { bytes: 1 });
    assert_eq!(pool.counters()[0].borrowed, units.total as u64);
    pool.try_take(1 << 20).expect("the large class is untouched");
}

#[test]
fn waiters_are_served_in_their_order() {
    let pool = small();
    let held = pool.try_take(1 << 20).unwrap();
    let mut first = pin!(pool.take(1 << 20));
    let mut second = pin!(pool.take(300_000));
    assert!(poll(first.as_mut()).is_pending());
    assert!(poll(second.as_mut()).is_pending());
    assert_eq!(pool.counters()[3].waiting, 2);
    drop(held);
    assert!(poll(second.as_mut()).is_pending(), "the second does not overtake");
    let Poll::Ready(buf) = poll(first.as_mut()) else { panic!("the first was given the buffer") };
    drop(buf);
    assert!(poll(second.as_mut()).is_ready());
}

#[test]
fn a_returned_buffer_may_serve_the_class_below() {
    let pool = small();
    let credits: Vec<_> = (0..pool.counters()[2].total).map(|_| pool.try_take(256 << 10).unwrap()).collect();
    let large = pool.try_take(1 << 20).unwrap();
    let mut waiting = pin!(pool.take(256 << 10));
    assert!(poll(waiting.as_mut()).is_pending());
    drop(large);
    let Poll::Ready(buf) = poll(waiting.as_mut()) else { panic!("served by the larger class") };
    assert_eq!((buf.len(), buf.capacity()), (256 << 10, 1 << 20));
    drop(credits);
}

#[test]
fn a_dropped_wait_passes_its_buffer_on() {
    let pool = small();
    let held = pool.try_take(1 << 20).unwrap();
    let mut second = pin!(pool.take(1 << 20));
    {
        let mut first = pin!(pool.take(1 << 20));
        assert!(poll(first.as_mut()).is_pending());
        assert!(poll(second.as_mut()).is_pending());
        drop(held);
    }
    assert!(poll(second.as_mut()).is_ready());
    assert_eq!(pool.free_bytes(), pool.bytes(), "the buffer of the second was dropped with its result");
}

#[test]
fn a_dropped_wait_leaves_the_queue() {
    let pool = small();
    let held = pool.try_take(1 << 20).unwrap();
    {
        let mut first = pin!(pool.take(1 << 20));
        assert!(poll(first.as_mut()).is_pending());
    }
    assert_eq!(pool.counters()[3].waiting, 0);
    drop(held);
    assert_eq!(pool.free_bytes(), pool.bytes());
}

#[test]
#[should_panic(expected = "the largest holds")]
fn more_than_a_mebibyte_is_a_mistake() {
    let _ = small().try_take((1 << 20) + 1);
}

#[test]
fn a_shared_buffer_thaws_only_when_whole_and_alone() {
    let pool = small();
    let mut buf = pool.try_take(4096).unwrap();
    buf[..4].copy_from_slice(b"nova");
    let shared = buf.freeze();
    let part = shared.slice(1..3);
    assert_eq!(&*part, b"ov");
    assert_eq!(&*part.slice(1..2), b"v");
    let shared = shared.try_thaw().expect_err("a part is held");
    let part = part.try_thaw().expect_err("a part does not thaw");
    drop(part);
    let buf = shared.try_thaw().expect("alone and whole");
    assert_eq!(&buf[..4], b"nova");
}

#[test]
#[cfg(debug_assertions)]
fn a_returned_buffer_is_poisoned_in_debug_builds() {
    let pool = small();
    let mut buf = pool.try_take(1 << 20).unwrap();
    buf.fill(7);
    drop(buf);
    let buf = pool.try_take(1 << 20).unwrap();
    assert!(buf.iter().all(|&byte| byte == 0xA5));
}

#[test]
fn buffers_outlive_the_handle_of_their_pool() {
    let buf = small().try_take(4096).unwrap();
    assert!(buf.iter().all(|&byte| byte == 0));
}

#[test]
fn lengths_stay_within_the_class() {
    let pool = small();
    let mut buf = pool.try_take(100).unwrap();
    buf.set_len(4096);
    buf.truncate(10);
    buf.truncate(20);
    assert_eq!(buf.len(), 10);
    let result = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| buf.set_len(4097)));
    assert!(result.is_err());
}

#[test]
fn sums_of_pages_go_with_the_bytes_and_not_past_a_change() {
    let pool = small();
    let sums: Rc<[PageSum]> = [PageSum(1), PageSum(2), PageSum(3)].into();
    let mut buf = pool.try_take(3 * 4096).unwrap();
    assert_eq!(buf.page_sums(), None);
    buf.set_page_sums(Rc::clone(&sums));
    let shared = buf.freeze();
    assert_eq!(shared.page_sums(), Some(&sums[..]));
    let part = shared.slice(4096..3 * 4096);
    assert_eq!(part.page_sums(), Some(&sums[1..]));
    assert_eq!(part.slice(4096..8192).page_sums(), Some(&sums[2..]));
    assert_eq!(part.slice(0..5000).page_sums(), None, "not whole pages");
    drop(part);
    let mut buf = shared.try_thaw().unwrap();
    assert_eq!(buf.page_sums(), Some(&sums[..]), "nobody wrote");
    let _ = &mut buf[0];
    assert_eq!(buf.page_sums(), None, "somebody may have written");
    buf.set_page_sums(sums);
    buf.truncate(4096);
    assert_eq!(buf.page_sums(), None, "they were of more pages");
}

#[test]
fn regions_cover_the_arena_and_know_their_buffers() {
    let pool = small();
    let regions = pool.regions();
    assert_eq!(regions.iter().map(|region| region.bytes).sum::<usize>(), 2 << 20);
    let buf = pool.try_take(64 << 10).unwrap();
    let region = regions[buf.region_index()];
    let inside = buf.as_ptr().addr() - region.address.addr().get();
    assert!(inside + buf.capacity() <= region.bytes);
    assert_eq!(buf.pool_id(), pool.id());
    assert_ne!(small().id(), pool.id());
}

#[test]
#[cfg(not(miri))]
fn lack_of_huge_pages_is_said_and_no_error() {
    let pool = Pool::new(PoolOptions { bytes: 1, huge: HugePages::Try }).unwrap();
    assert!(matches!(pool.backing(), Backing::HugePages | Backing::PagesForLackOfHuge));
    assert!(pool.try_take(1 << 20).unwrap().iter().all(|&byte| byte == 0));
}
