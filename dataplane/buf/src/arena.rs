//! The memory itself: one anonymous mapping, huge pages when they are wanted and there are any.

use core::ptr::NonNull;

use crate::BufError;

/// The kernel registers at most this much memory under one buffer index.
const REGION_BYTES_MAX: usize = 1 << 30;

/// Whether an arena should lie in huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HugePages {
    /// Use 2 MiB pages, or ordinary pages when the host has none to spare; [`Backing`] says which it was.
    Try,
    /// Ordinary pages: tests, the simulator, small machines.
    Never,
}

/// What an arena lies in; printed at start-up, because it decides the cost of large I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// 2 MiB pages.
    HugePages,
    /// Ordinary pages, as asked.
    Pages,
    /// Ordinary pages although huge pages were asked for: reserve some with `vm.nr_hugepages`.
    PagesForLackOfHuge,
}

/// One contiguous piece of the arena, to be registered with a ring under its index in `Pool::regions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Address of its first byte.
    pub address: NonNull<u8>,
    /// Length in bytes, at most 1 GiB.
    pub bytes: usize,
}

/// Owner of the mapping; unmaps when dropped.
#[derive(Debug)]
pub(crate) struct Arena {
    base: NonNull<u8>,
    bytes: usize,
    backing: Backing,
}

impl Arena {
    /// Maps `bytes` of zeroed memory, a multiple of 2 MiB.
    pub(crate) fn map(bytes: usize, huge: HugePages) -> Result<Self, BufError> {
        if huge == HugePages::Try
            && let Ok(base) = os::map(bytes, true)
        {
            return Ok(Self { base, bytes, backing: Backing::HugePages });
        }
        let backing = if huge == HugePages::Try { Backing::PagesForLackOfHuge } else { Backing::Pages };
        match os::map(bytes, false) {
            Ok(base) => Ok(Self { base, bytes, backing }),
            Err(errno) => Err(BufError::NoMemory { bytes, errno }),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn backing(&self) -> Backing {
        self.backing
    }

    /// Address of the byte at `offset`.
    ///
    /// # Panics
    /// When `offset` lies outside the arena.
    pub(crate) fn at(&self, offset: usize) -> NonNull<u8> {
        assert!(offset < self.bytes, "offset {offset} outside an arena of {} bytes", self.bytes);
        // SAFETY: `base` points at one mapping of `bytes` bytes and the assert keeps the result inside it.
        unsafe { self.base.add(offset) }
    }

    pub(crate) fn regions(&self) -> impl Iterator<Item = Region> + '_ {
        (0..self.bytes).step_by(REGION_BYTES_MAX).map(|offset| Region {
            address: self.at(offset),
            bytes: (self.bytes - offset).min(REGION_BYTES_MAX),
        })
    }

    /// Index in `regions` of the piece that holds `address`. Buffers never straddle pieces: classes are carved from
    /// the largest down, and 1 GiB is a multiple of the largest.
    pub(crate) fn region_of(&self, address: NonNull<u8>) -> usize {
        (address.addr().get() - self.base.addr().get()) / REGION_BYTES_MAX
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: `base` and `bytes` are what `os::map` returned; every `DmaBuf` holds the pool alive, so when the
        // arena drops no slice of it exists.
        unsafe { os::unmap(self.base, self.bytes) }
    }
}

#[cfg(not(miri))]
mod os {
    use core::{ffi::c_void, ptr::NonNull};

    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

    pub(super) fn map(bytes: usize, huge: bool) -> Result<NonNull<u8>, i32> {
        // Huge pages are claimed now: without MAP_POPULATE a pool that is overcommitted ends in SIGBUS later.
        let extra = if huge {
            MapFlags::HUGETLB | MapFlags::HUGE_2MB | MapFlags::POPULATE
        } else {
            MapFlags::empty()
        };
        // SAFETY: a fresh private anonymous mapping at an address of the kernel's choice overlaps nothing.
        let mapped = unsafe {
            mmap_anonymous(
                core::ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | extra,
            )
        };
        let base = mapped.map_err(rustix::io::Errno::raw_os_error)?;
        Ok(NonNull::new(base.cast::<u8>()).expect("the kernel maps nothing at address zero unasked"))
    }

    /// # Safety
    /// `base` and `bytes` come from one `map`, and nothing refers to the memory any more.
    pub(super) unsafe fn unmap(base: NonNull<u8>, bytes: usize) {
        // SAFETY: the caller's promise.
        let unmapped = unsafe { munmap(base.as_ptr().cast::<c_void>(), bytes) };
        debug_assert!(unmapped.is_ok(), "munmap of an arena: {unmapped:?}");
    }
}

/// Miri has no system calls of this kind; the allocator gives zeroed memory with the same alignment.
#[cfg(miri)]
mod os {
    use core::ptr::NonNull;
    use std::alloc::{Layout, alloc_zeroed, dealloc};

    fn layout(bytes: usize) -> Layout {
        Layout::from_size_align(bytes, 1 << 20).expect("arena sizes are small powers and multiples")
    }

    pub(super) fn map(bytes: usize, huge: bool) -> Result<NonNull<u8>, i32> {
        if huge {
            return Err(12);
        }
        // SAFETY: the layout has a size above zero: arenas are whole steps.
        NonNull::new(unsafe { alloc_zeroed(layout(bytes)) }).ok_or(12)
    }

    pub(super) unsafe fn unmap(base: NonNull<u8>, bytes: usize) {
        // SAFETY: allocated by `map` with this layout.
        unsafe { dealloc(base.as_ptr(), layout(bytes)) }
    }
}
