//! Reading directories: places that stay valid while entries come and go.

use novafs_client::{After, At, Client, ClientError, Entry};

/// Entries asked for at once: more than the kernel's usual buffer of 32 KiB holds with attributes.
const PAGE_ENTRIES: u32 = 256;

/// Behind `.`.
pub(crate) const AFTER_SELF: u64 = 1;
/// Behind `..`: entries follow, each at its cookie and this.
pub(crate) const AFTER_PARENT: u64 = 2;

/// Where the reader goes on after an entry.
pub(crate) fn behind(entry: &Entry) -> u64 {
    entry.cookie.saturating_add(AFTER_PARENT)
}

/// Gives the entries of a directory behind `offset` to `each`, until that says `true` for full.
///
/// Pages are asked for anew each time and not kept: attributes that were true earlier must not reach the kernel after
/// newer ones.
pub(crate) fn read(
    client: &Client,
    inode: u64,
    offset: u64,
    each: &mut dyn FnMut(&Entry) -> bool,
) -> Result<(), ClientError> {
    let mut cookie = offset.saturating_sub(AFTER_PARENT);
    loop {
        let page = client.list_page(At::inode(inode), After::Cookie(cookie), PAGE_ENTRIES)?;
        for entry in &page.entries {
            if each(entry) {
                return Ok(());
            }
            cookie = entry.cookie;
        }
        if !page.more || page.entries.is_empty() {
            return Ok(());
        }
    }
}
