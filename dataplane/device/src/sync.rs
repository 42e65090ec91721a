//! What tasks of one thread need to wait for each other. Nothing here is `Send`, and every wait is cancel safe.

mod gate;
mod give_way;
mod join;
mod notify;
pub mod oneshot;
mod semaphore;
mod timeout;

pub use gate::{Gate, Pass};
pub use give_way::give_way;
pub use join::join_all;
pub use notify::{Notified, Notify};
pub use semaphore::{Permit, Semaphore, TooManyWaiters};
pub use timeout::{TimedOut, timeout_at};

#[cfg(test)]
mod tests;
