//! The pool of a shard: free lists per class and a queue of those who wait.

use core::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, Waker},
};
use std::{collections::VecDeque, rc::Rc};

use crate::{
    ARENA_STEP_BYTES, Backing, CLASS_BYTES, CLASS_COUNT, DmaBuf, HugePages, Region, TAKE_BYTES_MAX,
    arena::Arena, class_counts, layout::class_for,
};

/// How a pool is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolOptions {
    /// Size of the arena in bytes; rounded up to whole steps of 2 MiB, at least one.
    pub bytes: u64,
    /// Whether to ask for huge pages.
    pub huge: HugePages,
}

/// Why a pool could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BufError {
    /// The kernel gave no memory.
    #[error("no memory for an arena of {bytes} bytes (errno {errno}): make the arena of the shard smaller")]
    NoMemory {
        /// Size asked for.
        bytes: usize,
        /// The kernel's answer.
        errno: i32,
    },
    /// The size does not fit the address space.
    #[error("an arena of {bytes} bytes does not fit the address space: make the arena of the shard smaller")]
    TooLarge {
        /// Size asked for.
        bytes: u64,
    },
}

/// No buffer of a fitting class is free now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no free buffer for {bytes} bytes: wait with `Pool::take`, or refuse the work")]
pub struct Exhausted {
    /// Bytes asked for.
    pub bytes: usize,
}

/// What happened in one class since the pool was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassCounters {
    /// Size of its buffers in bytes.
    pub bytes_each: usize,
    /// Buffers it has.
    pub total: usize,
    /// Buffers free now.
    pub free: usize,
    /// Requests waiting now.
    pub waiting: usize,
    /// Buffers lent since the start.
    pub lent: u64,
    /// Requests of this class that took a buffer of the next larger one.
    pub borrowed: u64,
    /// Requests that had to wait.
    pub waited: u64,
}

/// The buffers of one shard. Cloning gives another handle to the same pool; it belongs to one thread.
#[derive(Clone, Debug)]
pub struct Pool {
    inner: Rc<Inner>,
}

/// One buffer's place: what a `DmaBuf` gives back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunk {
    pub(crate) address: NonNull<u8>,
    pub(crate) class: usize,
}

#[derive(Debug)]
pub(crate) struct Inner {
    id: u64,
    lists: RefCell<[Class; CLASS_COUNT]>,
    /// Last, so that it outlives the lists.
    arena: Arena,
}

#[derive(Debug, Default)]
struct Class {
    free: Vec<NonNull<u8>>,
    waiters: VecDeque<Rc<Waiter>>,
    total: usize,
    lent: u64,
    borrowed: u64,
    waited: u64,
}

#[derive(Debug, Default)]
struct Waiter {
    granted: Cell<Option<Chunk>>,
    waker: RefCell<Option<Waker>>,
}

impl Pool {
    /// Takes the memory and carves it.
    ///
    /// All bytes are zero at first, so the contents of a buffer are always initialised.
    ///
    /// # Errors
    /// When the kernel refuses the memory. Lack of huge pages is no error; [`Pool::backing`] tells.
    pub fn new(options: PoolOptions) -> Result<Self, BufError> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let too_large = BufError::TooLarge { bytes: options.bytes };
        let bytes = usize::try_from(options.bytes.max(1))
            .ok()
            .and_then(|bytes| bytes.checked_next_multiple_of(ARENA_STEP_BYTES))
            .filter(|&bytes| isize::try_from(bytes).is_ok())
            .ok_or(too_large)?;
        let arena = Arena::map(bytes, options.huge)?;
        let mut classes: [Class; CLASS_COUNT] = Default::default();
        let mut offset = 0;
        // Largest first: every buffer is then aligned to its own size within the arena.
        for (class, count) in class_counts(bytes).into_iter().enumerate().rev() {
            let first = offset;
            offset += count * CLASS_BYTES[class];
            classes[class].total = count;
            // Reversed, so that buffers are lent in the order of their addresses.
            classes[class].free =
                (0..count).rev().map(|index| arena.at(first + index * CLASS_BYTES[class])).collect();
        }
        assert_eq!(offset, bytes, "every byte of the arena belongs to a class");
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Ok(Self { inner: Rc::new(Inner { id, lists: RefCell::new(classes), arena }) })
    }

    /// A buffer of `bytes`, from the smallest class that holds it or, when that has none, the next larger one.
    ///
    /// Its contents are whatever its last user left: initialised, but not zero.
    ///
    /// # Errors
    /// When none is free now.
    ///
    /// # Panics
    /// When `bytes` is above [`TAKE_BYTES_MAX`].
    pub fn try_take(&self, bytes: usize) -> Result<DmaBuf, Exhausted> {
        let class = Self::checked_class(bytes);
        let chunk = self.inner.lend(class).ok_or(Exhausted { bytes })?;
        Ok(DmaBuf::new(Rc::clone(&self.inner), chunk, bytes))
    }

    /// Like [`Pool::try_take`], but waits for a buffer; first come, first served within a class.
    ///
    /// # Cancel safety
    /// A dropped wait leaves the queue; a buffer it had been given goes to the next in line.
    ///
    /// # Panics
    /// When `bytes` is above [`TAKE_BYTES_MAX`].
    pub async fn take(&self, bytes: usize) -> DmaBuf {
        let class = Self::checked_class(bytes);
        if let Some(chunk) = self.inner.lend(class) {
            return DmaBuf::new(Rc::clone(&self.inner), chunk, bytes);
        }
        let waiter = Rc::new(Waiter::default());
        {
            let mut lists = self.inner.lists.borrow_mut();
            lists[class].waiters.push_back(Rc::clone(&waiter));
            lists[class].waited += 1;
        }
        let chunk = Taking { inner: &self.inner, class, waiter }.await;
        DmaBuf::new(Rc::clone(&self.inner), chunk, bytes)
    }

    /// Bytes in free buffers, over all classes.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        let lists = self.inner.lists.borrow();
        let bytes: usize = lists.iter().zip(CLASS_BYTES).map(|(class, bytes)| class.free.len() * bytes).sum();
        bytes as u64
    }

    /// Size of the arena in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.inner.arena.bytes() as u64
    }

    /// What the arena lies in.
    #[must_use]
    pub fn backing(&self) -> Backing {
        self.inner.arena.backing()
    }

    /// Tells pools apart: a buffer registered for one pool is not registered for another.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.inner.id
    }

    /// The pieces to register with a ring, in the order of [`DmaBuf::region_index`].
    ///
    /// The memory stays mapped for as long as the pool or any of its buffers lives.
    #[must_use]
    pub fn regions(&self) -> Vec<Region> {
        self.inner.arena.regions().collect()
    }

    /// Counters of every class, smallest first.
    #[must_use]
    pub fn counters(&self) -> [ClassCounters; CLASS_COUNT] {
        let lists = self.inner.lists.borrow();
        core::array::from_fn(|index| {
            let class = &lists[index];
            ClassCounters {
                bytes_each: CLASS_BYTES[index],
                total: class.total,
                free: class.free.len(),
                waiting: class.waiters.len(),
                lent: class.lent,
                borrowed: class.borrowed,
                waited: class.waited,
            }
        })
    }

    fn checked_class(bytes: usize) -> usize {
        class_for(bytes)
            .unwrap_or_else(|| panic!("a buffer of {bytes} bytes: the largest holds {TAKE_BYTES_MAX}"))
    }
}

impl Inner {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn region_of(&self, chunk: Chunk) -> usize {
        self.arena.region_of(chunk.address)
    }

    /// Takes a free buffer. Nobody is overtaken: a class with waiters has no free buffer, nor has the next one.
    fn lend(&self, class: usize) -> Option<Chunk> {
        let mut lists = self.lists.borrow_mut();
        if let Some(address) = lists[class].free.pop() {
            lists[class].lent += 1;
            return Some(Chunk { address, class });
        }
        // One step up and no further: a flood of small requests must not use up the large buffers.
        let larger = class + 1;
        let address = lists.get_mut(larger)?.free.pop()?;
        lists[larger].lent += 1;
        lists[class].borrowed += 1;
        Some(Chunk { address, class: larger })
    }

    /// Takes a buffer back and gives it to the first who waits for its class, then for the class below.
    pub(crate) fn give_back(&self, chunk: Chunk) {
        let waker = {
            let mut lists = self.lists.borrow_mut();
            let mut next = lists[chunk.class].waiters.pop_front();
            if next.is_none() && chunk.class > 0 {
                next = lists[chunk.class - 1].waiters.pop_front();
                lists[chunk.class - 1].borrowed += u64::from(next.is_some());
            }
            match next {
                Some(waiter) => {
                    lists[chunk.class].lent += 1;
                    waiter.granted.set(Some(chunk));
                    waiter.waker.take()
                }
                None => {
                    lists[chunk.class].free.push(chunk.address);
                    None
                }
            }
        };
        // Outside the borrow: a waker may run code that takes buffers.
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The wait inside `Pool::take`.
struct Taking<'pool> {
    inner: &'pool Rc<Inner>,
    class: usize,
    waiter: Rc<Waiter>,
}

impl Future for Taking<'_> {
    type Output = Chunk;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Chunk> {
        match self.waiter.granted.take() {
            Some(chunk) => Poll::Ready(chunk),
            None => {
                self.waiter.waker.replace(Some(context.waker().clone()));
                Poll::Pending
            }
        }
    }
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        match self.waiter.granted.take() {
            Some(chunk) => self.inner.give_back(chunk),
            None => {
                let mut lists = self.inner.lists.borrow_mut();
                lists[self.class].waiters.retain(|waiter| !Rc::ptr_eq(waiter, &self.waiter));
            }
        }
    }
}

#[cfg(test)]
mod tests;
