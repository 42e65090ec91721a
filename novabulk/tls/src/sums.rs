//! Sums of the pages of what is opened, record by record, while it is in the cache of the core (docs/adr/0019).

use std::rc::Rc;

use nova_units::{PAGE_BYTES, PageSum};

const PAGE: usize = 4096;
const _: () = assert!(PAGE as u64 == PAGE_BYTES);

/// Goes over bytes in pieces of any length.
pub(crate) struct Summer {
    whole: Vec<PageSum>,
    /// The page that is not whole yet, and how much of it there is.
    page: crc32fast::Hasher,
    page_bytes: usize,
}

impl Summer {
    /// One for a buffer of `bytes`; `None` when that is not whole pages.
    pub(crate) fn of(bytes: usize) -> Option<Self> {
        let whole = bytes.is_multiple_of(PAGE).then(|| Vec::with_capacity(bytes / PAGE))?;
        Some(Self { whole, page: crc32fast::Hasher::new(), page_bytes: 0 })
    }

    /// Takes the next bytes.
    pub(crate) fn add(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(bytes.len().min(PAGE - self.page_bytes));
            self.page.update(piece);
            self.page_bytes += piece.len();
            if self.page_bytes == PAGE {
                let page = core::mem::replace(&mut self.page, crc32fast::Hasher::new());
                self.whole.push(PageSum(page.finalize()));
                self.page_bytes = 0;
            }
            bytes = rest;
        }
    }

    /// The sums of all pages that are whole.
    pub(crate) fn finish(self) -> Rc<[PageSum]> {
        self.whole.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_length_have_the_sums_of_their_pages() {
        let bytes: Vec<u8> = (0..3 * PAGE).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let wanted: Vec<PageSum> = bytes.chunks(PAGE).map(|page| PageSum(crc32fast::hash(page))).collect();
        for piece in [1, 7, 4095, 4096, 4097, 3 * PAGE] {
            let mut summer = Summer::of(bytes.len()).unwrap();
            bytes.chunks(piece).for_each(|piece| summer.add(piece));
            assert_eq!(summer.finish()[..], wanted, "in pieces of {piece}");
        }
        assert!(Summer::of(PAGE + 1).is_none());
    }
}
