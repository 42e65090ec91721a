//! The time of this host.

use core::{
    cell::Cell,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use nova_units::Timestamp;
use rustix::time::{ClockId, clock_gettime};

use super::Reactor;
use crate::Clock;

/// `CLOCK_BOOTTIME`: a lease runs on while the host is suspended. Timers are served by the reactor.
#[derive(Clone)]
pub struct RealClock {
    reactor: Reactor,
}

impl RealClock {
    /// The clock of the thread of `reactor`.
    #[must_use]
    pub fn new(reactor: &Reactor) -> Self {
        Self { reactor: reactor.clone() }
    }
}

/// Time since this host booted.
pub(super) fn boot_time() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).expect("the host has booted");
    let nanos = u32::try_from(time.tv_nsec).expect("below a second");
    Duration::new(seconds, nanos)
}

impl Clock for RealClock {
    fn now(&self) -> Duration {
        boot_time()
    }

    fn calendar(&self) -> Timestamp {
        let time = clock_gettime(ClockId::Realtime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        Timestamp(seconds * 1000 + u64::try_from(time.tv_nsec / 1_000_000).unwrap_or(0))
    }

    async fn sleep_until(&self, at: Duration) {
        Sleep { reactor: &self.reactor, at, number: Cell::new(None) }.await;
    }
}

impl fmt::Debug for RealClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RealClock").field("now", &boot_time()).finish_non_exhaustive()
    }
}

struct Sleep<'clock> {
    reactor: &'clock Reactor,
    at: Duration,
    number: Cell<Option<u64>>,
}

impl Future for Sleep<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if boot_time() >= self.at {
            return Poll::Ready(());
        }
        let number = self.reactor.set_timer(self.at, self.number.get(), context.waker().clone());
        self.number.set(Some(number));
        Poll::Pending
    }
}

impl Drop for Sleep<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number.get() {
            self.reactor.clear_timer(self.at, number);
        }
    }
}
