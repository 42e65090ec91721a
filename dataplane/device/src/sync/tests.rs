use core::{
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Wake,
};

use super::{oneshot::Dropped, *};

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[derive(Default)]
struct Counting(AtomicUsize);

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_notification_without_waiters_is_remembered_once() {
    let notify = Notify::new();
    notify.notify_one();
    notify.notify_one();
    assert!(poll(pin!(notify.notified())).is_ready());
    assert!(poll(pin!(notify.notified())).is_pending());
}

#[test]
fn one_wakes_the_longest_waiting_and_all_wakes_everyone() {
    let notify = Notify::new();
    let (mut first, mut second, mut third) =
        (pin!(notify.notified()), pin!(notify.notified()), pin!(notify.notified()));
    assert!(poll(first.as_mut()).is_pending());
    assert!(poll(second.as_mut()).is_pending());
    notify.notify_one();
    assert!(poll(second.as_mut()).is_pending());
    assert!(poll(first.as_mut()).is_ready());
    notify.notify_all();
    assert!(poll(second.as_mut()).is_ready());
    assert!(poll(third.as_mut()).is_ready(), "made before the round, although never polled");
    assert!(poll(pin!(notify.notified())).is_pending(), "a round is not remembered");
}

#[test]
fn a_dropped_waiter_passes_its_notification_on() {
    let notify = Notify::new();
    let mut second = pin!(notify.notified());
    {
        let mut first = pin!(notify.notified());
        assert!(poll(first.as_mut()).is_pending());
        assert!(poll(second.as_mut()).is_pending());
        notify.notify_one();
    }
    assert!(poll(second.as_mut()).is_ready());
}

#[test]
fn waiters_are_woken_through_the_waker_of_their_last_poll() {
    let notify = Notify::new();
    let (old, new) = (Arc::new(Counting::default()), Arc::new(Counting::default()));
    let mut wait = pin!(notify.notified());
    assert!(wait.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::clone(&old)))).is_pending());
    assert!(wait.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::clone(&new)))).is_pending());
    notify.notify_one();
    assert_eq!((old.0.load(Ordering::Relaxed), new.0.load(Ordering::Relaxed)), (0, 1));
}

#[test]
fn permits_are_granted_in_order_and_large_requests_are_not_overtaken() {
    let semaphore = Semaphore::new(4, 8);
    let held = semaphore.try_acquire(3).unwrap();
    let (mut large, mut small) = (pin!(semaphore.acquire(4)), pin!(semaphore.acquire(1)));
    assert!(poll(large.as_mut()).is_pending());
    assert!(poll(small.as_mut()).is_pending(), "one is free, but the large request came first");
    assert!(semaphore.try_acquire(1).is_none());
    drop(held);
    let Poll::Ready(Ok(permit)) = poll(large.as_mut()) else { panic!("all four are free") };
    assert_eq!(permit.count(), 4);
    assert!(poll(small.as_mut()).is_pending());
    drop(permit);
    assert!(poll(small.as_mut()).is_ready());
    assert_eq!(semaphore.available(), 4);
}

#[test]
fn a_dropped_wait_returns_or_unblocks() {
    let semaphore = Semaphore::new(2, 8);
    let held = semaphore.try_acquire(1).unwrap();
    let mut small = pin!(semaphore.acquire(1));
    {
        let mut large = pin!(semaphore.acquire(2));
        assert!(poll(large.as_mut()).is_pending());
        assert!(poll(small.as_mut()).is_pending());
    }
    let Poll::Ready(Ok(second)) = poll(small.as_mut()) else { panic!("the large request is gone") };
    let granted = {
        let mut wait = pin!(semaphore.acquire(1));
        assert!(poll(wait.as_mut()).is_pending());
        drop(second);
        semaphore.available()
    };
    assert_eq!((granted, semaphore.available(), semaphore.waiting()), (0, 1, 0));
    drop(held);
}

#[test]
fn the_queue_of_a_semaphore_is_bounded() {
    let semaphore = Semaphore::new(1, 1);
    let _held = semaphore.try_acquire(1).unwrap();
    let mut wait = pin!(semaphore.acquire(1));
    assert!(poll(wait.as_mut()).is_pending());
    let Poll::Ready(refused) = poll(pin!(semaphore.acquire(1))) else { panic!("refused at once") };
    assert_eq!(refused.unwrap_err(), TooManyWaiters { waiters_max: 1 });
}

#[test]
fn a_value_crosses_once_and_a_dropped_end_is_seen() {
    let (sender, receiver) = oneshot::channel();
    let mut receiver = pin!(receiver);
    assert!(poll(receiver.as_mut()).is_pending());
    assert_eq!(sender.send(7), Ok(()));
    assert_eq!(poll(receiver.as_mut()), Poll::Ready(Ok(7)));

    let (sender, receiver) = oneshot::channel::<u8>();
    drop(sender);
    assert_eq!(poll(pin!(receiver)), Poll::Ready(Err(Dropped)));

    let (sender, receiver) = oneshot::channel();
    drop(receiver);
    assert!(sender.is_closed());
    assert_eq!(sender.send(9), Err(9));
}

#[test]
fn the_receiver_wakes_when_the_sender_goes() {
    let counting = Arc::new(Counting::default());
    let waker = Waker::from(Arc::clone(&counting));
    let (sender, receiver) = oneshot::channel::<u8>();
    let mut receiver = pin!(receiver);
    assert!(receiver.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    drop(sender);
    assert_eq!(counting.0.load(Ordering::Relaxed), 1);
}

#[test]
fn a_closed_gate_lets_nobody_in_and_waits_for_the_last() {
    let gate = Gate::new();
    let (first, second) = (gate.enter().unwrap(), gate.enter().unwrap());
    let mut closing = pin!(gate.close());
    assert!(poll(closing.as_mut()).is_pending());
    assert!(gate.enter().is_none() && gate.is_closed());
    drop(first);
    assert!(poll(closing.as_mut()).is_pending());
    drop(second);
    assert!(poll(closing.as_mut()).is_ready());
    assert_eq!(gate.inside(), 0);
}
