//! Which numbered requests of a client are under way: none runs far ahead of the oldest.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard};

/// Numbers from the oldest request under way to the newest. File metadata keeps the last 128 answers of a client and refuses
/// what is older: a request that waits, or is sent again, while others overtake it must not fall behind that.
const SPAN_MAX: u64 = 64;

#[derive(Debug, Default)]
struct UnderWay {
    last: u64,
    numbers: BTreeSet<u64>,
}

impl UnderWay {
    fn has_room(&self) -> bool {
        self.numbers.first().is_none_or(|oldest| self.last + 1 - oldest < SPAN_MAX)
    }
}

/// The requests of a client that change something.
#[derive(Debug, Default)]
pub(crate) struct Window {
    under_way: Mutex<UnderWay>,
    moved: Condvar,
}

/// The number of a request; it is over when this is dropped.
#[derive(Debug)]
pub(crate) struct Number<'w> {
    window: &'w Window,
    pub(crate) sequence: u64,
}

impl Window {
    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way.lock().expect("no holder of this lock panics")
    }

    /// The next number, from 1 on. Waits while the oldest request under way is too far behind; that is over at its
    /// deadline at the latest.
    pub(crate) fn begin(&self) -> Number<'_> {
        let mut under_way = self.lock();
        while !under_way.has_room() {
            under_way = self.moved.wait(under_way).expect("no holder of this lock panics");
        }
        under_way.last += 1;
        let sequence = under_way.last;
        under_way.numbers.insert(sequence);
        Number { window: self, sequence }
    }
}

impl Drop for Number<'_> {
    fn drop(&mut self) {
        let mut under_way = self.window.lock();
        let was_oldest = under_way.numbers.first() == Some(&self.sequence);
        under_way.numbers.remove(&self.sequence);
        drop(under_way);
        if was_oldest {
            self.window.moved.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_request_waits_until_the_oldest_under_way_is_near_and_others_do_not_matter() {
        let window = Window::default();
        let oldest = window.begin();
        assert_eq!(oldest.sequence, 1);
        for sequence in 2..=SPAN_MAX {
            assert_eq!(window.begin().sequence, sequence, "those before it are over");
        }
        let (told, heard) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| told.send(window.begin().sequence).unwrap());
            assert!(heard.recv_timeout(Duration::from_millis(50)).is_err(), "the oldest is under way");
            drop(oldest);
            assert_eq!(heard.recv_timeout(Duration::from_secs(10)), Ok(SPAN_MAX + 1));
        });
    }

    #[test]
    fn many_threads_get_each_number_once_and_none_far_ahead() {
        let window = Window::default();
        let mut all: Vec<u64> = thread::scope(|scope| {
            let run = || {
                let mut own = Vec::new();
                for _ in 0..200 {
                    let number = window.begin();
                    thread::yield_now();
                    let newest = window.lock().last;
                    assert!(
                        newest - number.sequence < SPAN_MAX,
                        "{newest} while {} is under way",
                        number.sequence
                    );
                    own.push(number.sequence);
                }
                own
            };
            let threads: Vec<_> = (0..100).map(|_| scope.spawn(run)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        all.sort_unstable();
        assert_eq!(all, (1..=20_000).collect::<Vec<_>>());
    }
}
