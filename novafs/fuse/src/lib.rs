//! NovaFS as a mounted file system: names and bytes of a region for every program, through the kernel's FUSE.
//!
//! A mount is one client ([`novafs_client`]) with one writer session. What a program writes is durable when its
//! `fsync` or `close` returns without an error, and visible to other hosts then. A file has one writing host at a
//! time: opening it for writing on a second one fails with `ETXTBSY`.
//!
//! The kernel keeps attributes and names for a second ([`TTL`]), and pages of a file until it is opened anew or its
//! time of change moves. It checks permissions by mode, owner and group. `docs/novafs.md` lists what differs from a
//! local file system.
#![forbid(unsafe_code)]

mod attributes;
mod directory;
mod errno;
mod filesystem;
mod handles;
mod mount;
mod xattr;

pub use errno::errno;
pub use mount::{Mount, MountError, MountOptions, TTL};
