//! How threads leave things for a shard: a bounded queue, and a bell that wakes it.
//!
//! The bell is an eventfd, because a shard sleeps in its own ring and hears only what is in it (docs/adr/0017). It is rung
//! when the queue was empty: a shard that is still taking things finds what came meanwhile.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard};

use rustix::event::{EventfdFlags, eventfd};

/// The mailbox has as much in it as it may: what was to be left comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the mailbox is full: ask again later")]
pub struct Full<T>(pub T);

/// Where any thread leaves things for one shard.
#[derive(Debug)]
pub struct Mailbox<T> {
    waiting: Mutex<VecDeque<T>>,
    posts_max: usize,
    bell: OwnedFd,
}

impl<T> Mailbox<T> {
    /// An empty mailbox that holds at most `posts_max` things.
    ///
    /// # Errors
    /// When the process has no descriptor left for the bell.
    pub fn new(posts_max: usize) -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self { waiting: Mutex::default(), posts_max, bell })
    }

    /// Leaves `post`.
    ///
    /// # Errors
    /// [`Full`], with what was to be left.
    pub fn post(&self, post: T) -> Result<(), Full<T>> {
        self.post_within(self.posts_max, post)
    }

    /// Leaves `post` when fewer than `posts_max` things wait, or than the mailbox may hold: what can be asked again leaves
    /// room for what cannot.
    ///
    /// # Errors
    /// [`Full`], with what was to be left.
    pub fn post_within(&self, posts_max: usize, post: T) -> Result<(), Full<T>> {
        let mut waiting = self.waiting();
        if waiting.len() >= posts_max.min(self.posts_max) {
            return Err(Full(post));
        }
        let was_empty = waiting.is_empty();
        waiting.push_back(post);
        drop(waiting);
        if was_empty {
            self.ring();
        }
        Ok(())
    }

    /// Wakes the shard though nothing was left for it.
    pub fn ring(&self) {
        // The counter of an eventfd holds 2^64 - 2 rings before a write would fail.
        let _ = rustix::io::write(&self.bell, &1u64.to_le_bytes());
    }

    /// All that was left, the oldest first.
    pub fn take_all(&self) -> VecDeque<T> {
        std::mem::take(&mut *self.waiting())
    }

    /// Readable while something may be waiting.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Makes the bell silent until it is rung again. Take what was left after this, not before.
    pub fn silence(&self) {
        // Nothing to read means it was silent already.
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.waiting.lock().expect("no holder of this lock panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rings(mailbox: &Mailbox<u32>) -> u64 {
        let mut count = [0; 8];
        rustix::io::read(mailbox.bell(), &mut count).map_or(0, |_| u64::from_le_bytes(count))
    }

    #[test]
    fn the_bell_rings_for_the_first_post_and_not_for_those_behind_it() {
        let mailbox = Mailbox::new(8).unwrap();
        mailbox.post(1).unwrap();
        mailbox.post(2).unwrap();
        assert_eq!(rings(&mailbox), 1);
        assert_eq!(mailbox.take_all(), [1, 2]);
        mailbox.post(3).unwrap();
        assert_eq!(rings(&mailbox), 1);
        mailbox.ring();
        mailbox.silence();
        assert_eq!(rings(&mailbox), 0);
        assert_eq!(mailbox.take_all(), [3]);
    }

    #[test]
    fn a_full_mailbox_gives_back_what_it_has_no_room_for() {
        let mailbox = Mailbox::new(3).unwrap();
        assert_eq!(mailbox.post_within(1, 1), Ok(()));
        assert_eq!(mailbox.post_within(1, 2), Err(Full(2)), "it leaves room for others");
        assert_eq!(mailbox.post(2), Ok(()));
        assert_eq!(mailbox.post_within(9, 3), Ok(()));
        assert_eq!(mailbox.post_within(9, 4), Err(Full(4)), "no bound of a caller is wider than its own");
        assert_eq!(mailbox.post(4), Err(Full(4)));
        assert_eq!(mailbox.take_all(), [1, 2, 3]);
    }
}
