//! Reading the tree on the device.

pub(crate) mod merge;

use crate::core::Core;
use crate::error::StoreError;
use nova_device::{Disk as _, Position, Shard};
use nova_units::IoClass;
use novafs_format::{FormatError, Key, PAGE, Root, TreePage, TreePlace, Value};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

/// Times a metadata page is read before it counts as damaged: a read that went astray is not rot.
const READ_TRIES: usize = 2;

/// Clean pages in memory, oldest out first.
#[derive(Debug)]
pub(crate) struct PageCache {
    pages: HashMap<u64, (u32, Rc<TreePage>)>,
    order: VecDeque<u64>,
    pages_max: usize,
}

impl PageCache {
    pub(crate) fn new(pages_max: usize) -> Self {
        Self { pages: HashMap::new(), order: VecDeque::new(), pages_max: pages_max.max(1) }
    }

    fn get(&self, position: u64, crc: u32) -> Option<Rc<TreePage>> {
        self.pages.get(&position).filter(|(known, _)| *known == crc).map(|(_, page)| Rc::clone(page))
    }

    pub(crate) fn insert(&mut self, position: u64, crc: u32, page: Rc<TreePage>) {
        if self.pages.insert(position, (crc, page)).is_none() {
            self.order.push_back(position);
        }
        while self.order.len() > self.pages_max {
            let oldest = self.order.pop_front().expect("longer than at least one");
            self.pages.remove(&oldest);
        }
    }
}

impl<S: Shard> Core<S> {
    /// The page that `root` names, checked against the checksum its parent holds. Scrub is given what the device has,
    /// not what is in memory; where the device's is bad and memory has it, it is written again.
    pub(crate) async fn load_page(&self, root: Root, class: IoClass) -> Result<Rc<TreePage>, StoreError> {
        let cached = self.cache.borrow().get(root.position, root.crc);
        let scrubs = class == IoClass::Scrub;
        if let Some(page) = cached.as_ref().filter(|_| !scrubs) {
            return Ok(Rc::clone(page));
        }
        let place = TreePlace { salt: self.salt, position: root.position, level: root.level };
        let mut error = StoreError::Metadata { position: root.position, source: FormatError::Short };
        for _ in 0..READ_TRIES {
            let buffer = self.shard.pool().take(PAGE).await;
            let (result, buffer) = self.disk().read(class, Position(root.position), buffer).await;
            error = match result {
                Ok(()) => match TreePage::decode(&buffer, place, root.crc) {
                    Ok(page) => {
                        let page = Rc::new(page);
                        if !scrubs {
                            self.cache.borrow_mut().insert(root.position, root.crc, Rc::clone(&page));
                        }
                        return Ok(page);
                    }
                    Err(source) => StoreError::Metadata { position: root.position, source },
                },
                Err(source) => StoreError::Read(source),
            };
        }
        let Some(page) = cached else { return Err(error) };
        let (bytes, crc) = page.encode(place);
        assert_eq!(crc, root.crc, "the cache holds the page that its parent names");
        let mut buffer = self.shard.pool().take(PAGE).await;
        buffer.copy_from_slice(&bytes);
        self.write(IoClass::Repair, root.position, buffer.freeze()).await?;
        self.flush().await?;
        self.count(|counters| counters.pages_rewritten += 1);
        Ok(page)
    }

    /// The value of a key in the tree under `root`.
    pub(crate) async fn tree_get(
        &self,
        root: Option<Root>,
        key: &Key,
        class: IoClass,
    ) -> Result<Option<Value>, StoreError> {
        let Some(mut at) = root else { return Ok(None) };
        loop {
            match &*self.load_page(at, class).await? {
                TreePage::Leaf(items) => {
                    let found = items.binary_search_by_key(key, |(key, _)| *key);
                    return Ok(found.ok().map(|index| items[index].1));
                }
                TreePage::Branch(children) => {
                    let index = children.partition_point(|child| child.first <= *key).saturating_sub(1);
                    let child = children[index];
                    at = Root { position: child.position, crc: child.crc, level: at.level - 1 };
                }
            }
        }
    }

    /// Values of the tree under `root` from `from` on, in order: whole leaves until there are `limit` or `to` is
    /// passed. The flag says whether that was all up to `to`.
    pub(crate) async fn tree_range(
        &self,
        root: Option<Root>,
        from: Key,
        to: Key,
        limit: usize,
        class: IoClass,
    ) -> Result<(Vec<(Key, Value)>, bool), StoreError> {
        let mut found = Vec::new();
        let mut stack: Vec<Root> = root.into_iter().collect();
        while let Some(at) = stack.pop() {
            match &*self.load_page(at, class).await? {
                TreePage::Leaf(items) => {
                    let start = items.partition_point(|(key, _)| *key < from);
                    let end = items.partition_point(|(key, _)| *key <= to);
                    found.extend_from_slice(&items[start.min(end)..end]);
                    if found.len() >= limit && !stack.is_empty() {
                        return Ok((found, false));
                    }
                }
                TreePage::Branch(children) => {
                    let start = children.partition_point(|child| child.first <= from).saturating_sub(1);
                    let end = children.partition_point(|child| child.first <= to);
                    let level = at.level - 1;
                    let wanted = children[start.min(end)..end].iter().rev();
                    stack.extend(wanted.map(|child| Root {
                        position: child.position,
                        crc: child.crc,
                        level,
                    }));
                }
            }
        }
        Ok((found, true))
    }
}
