//! Sealed shared memory and its mapping.

use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

use crate::error::AttachError;

/// Makes shared memory of `bytes` that neither side can shrink, grow or seal further: no access to it can fault.
pub(crate) fn sealed_memory(name: &str, bytes: usize) -> Result<OwnedFd, AttachError> {
    let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        .map_err(AttachError::system("create shared memory"))?;
    let length = u64::try_from(bytes).expect("usize fits 64 bits");
    rustix::fs::ftruncate(&fd, length).map_err(AttachError::system("size shared memory"))?;
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
        .map_err(AttachError::system("seal shared memory"))?;
    Ok(fd)
}

/// Refuses memory that its maker could still cut off under us.
pub(crate) fn check_sealed(fd: impl AsFd, bytes: usize) -> Result<(), AttachError> {
    let seals =
        rustix::fs::fcntl_get_seals(&fd).map_err(AttachError::system("read the seals of shared memory"))?;
    if !seals.contains(SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL) {
        return Err(AttachError::NotRing("its memory is not sealed"));
    }
    let stat = rustix::fs::fstat(&fd).map_err(AttachError::system("measure shared memory"))?;
    if usize::try_from(stat.st_size) != Ok(bytes) {
        return Err(AttachError::NotRing("its memory has another size than it said"));
    }
    Ok(())
}

/// A shared mapping; unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping belongs to no thread; all access to it is by atomics or by raw copies whose bounds are checked.
unsafe impl Send for Mapping {}
// SAFETY: as above; `&Mapping` gives out no reference to plain memory.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `bytes` of sealed memory, readable and writable.
    pub(crate) fn new(fd: impl AsFd, bytes: usize) -> Result<Self, AttachError> {
        // SAFETY: a fresh shared mapping at an address of the kernel's choice touches no memory of ours.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::NORESERVE,
                fd,
                0,
            )
        }
        .map_err(AttachError::system("map shared memory"))?;
        let base = NonNull::new(base.cast::<u8>()).expect("mmap answers an error, never null");
        Ok(Self { base, bytes })
    }

    /// Where `count` bytes at `offset` lie.
    ///
    /// # Panics
    /// When they are not all inside: offsets come from the layout, never from the peer.
    pub(crate) fn at(&self, offset: usize, count: usize) -> NonNull<u8> {
        let end = offset.checked_add(count).expect("a range inside one mapping");
        assert!(end <= self.bytes, "{offset}+{count} of a mapping of {} bytes", self.bytes);
        // SAFETY: `offset <= bytes`, checked just above, so the pointer stays within the mapping.
        unsafe { self.base.add(offset) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `new` mapped exactly these bytes and every pointer into them is held next to an Arc of this owner.
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.bytes) };
        assert!(unmapped.is_ok(), "unmap of a range we mapped: {unmapped:?}");
    }
}
