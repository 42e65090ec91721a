//! Writing the tree: an overlay is merged into it, copy on write.
//!
//! Pages that the overlay does not touch stay where they are. Of those it touches, neighbours are packed together
//! again, so that deletions shrink the tree; a small leaf between untouched ones stays small until it is touched.

use crate::core::{Core, yield_now};
use crate::error::StoreError;
use crate::overlay::{Overlay, cell_of};
use core::time::Duration;
use nova_buf::DmaBuf;
use nova_device::{Clock as _, Disk as _, Durability, Position, Shard};
use nova_units::IoClass;
use novafs_format::{
    Cell, Child, Key, PAGE, Root, TREE_CHILDREN_MAX, TREE_ENTRY_BYTES, TREE_LEVEL_MAX, TreePage, TreePlace,
    Value,
};
use std::ops::Bound;
use std::pin::Pin;
use std::rc::Rc;

/// New pages that lie together go out in writes of this size at most.
const WRITE_BYTES_MAX: usize = 64 << 10;
/// Leaves gathered before full ones are written.
const PENDING_BYTES_MAX: usize = 32 * TREE_ENTRY_BYTES;
/// How often, and how long apart, a checkpoint looks for a free page before it gives up: 10 seconds.
const PAGE_TRIES_MAX: usize = 1000;
const PAGE_TRY_INTERVAL: Duration = Duration::from_millis(10);
/// Pages handled between two turns of the shard's other tasks.
const PAGES_PER_TURN: usize = 16;

pub(crate) struct Merge<'a, S: Shard> {
    core: &'a Core<S>,
    overlay: &'a Overlay,
    hidden: Vec<(Key, Key)>,
    /// Cells of units that the overlay replaced or removed.
    pub(crate) freed_cells: Vec<Cell>,
    /// Pages of the old tree that the new one does not have.
    pub(crate) freed_pages: Vec<u64>,
    /// Pages of the new tree that the old one does not have.
    pub(crate) new_pages: Vec<u64>,
    write: Option<(u64, DmaBuf)>,
    turn: usize,
}

type Children<'b> = Pin<Box<dyn Future<Output = Result<Vec<Child>, StoreError>> + 'b>>;
type Edge = Bound<Key>;

impl<'a, S: Shard> Merge<'a, S> {
    pub(crate) fn new(core: &'a Core<S>, overlay: &'a Overlay) -> Self {
        Self {
            core,
            overlay,
            hidden: overlay.hidden(),
            freed_cells: Vec::new(),
            freed_pages: Vec::new(),
            new_pages: Vec::new(),
            write: None,
            turn: 0,
        }
    }

    /// Merges and writes the new pages (not flushed); returns the new root.
    pub(crate) async fn run(&mut self, root: Option<Root>) -> Result<Option<Root>, StoreError> {
        if self.overlay.is_empty() {
            return Ok(root);
        }
        let lowest = Key::group(nova_units::GroupId(0));
        let (mut level, refs) = match root {
            Some(root) => (root.level, vec![Child { first: lowest, position: root.position, crc: root.crc }]),
            None => (0, Vec::new()),
        };
        let mut children = self.rewrite(level, refs, (Bound::Unbounded, Bound::Unbounded)).await?;
        while children.len() > 1 {
            level += 1;
            assert!(level <= TREE_LEVEL_MAX, "no device holds a tree this high");
            children = self.pack_branches(level, children).await?;
        }
        self.write_out().await?;
        let Some(mut top) = children.pop() else { return Ok(None) };
        // A branch with a single child is not needed.
        while level > 0 {
            let root = Root { position: top.position, crc: top.crc, level };
            let page = self.core.load_page(root, IoClass::Background).await?;
            match &*page {
                TreePage::Branch(children) if children.len() == 1 => {
                    self.drop_page(top.position);
                    top = children[0];
                    level -= 1;
                }
                _ => break,
            }
        }
        Ok(Some(Root { position: top.position, crc: top.crc, level }))
    }

    fn drop_page(&mut self, position: u64) {
        // A page made by this very merge was never part of the old tree: it is free at once.
        if let Some(index) = self.new_pages.iter().rposition(|page| *page == position) {
            self.new_pages.swap_remove(index);
            self.core.state.borrow_mut().pages.free(position);
        } else {
            self.freed_pages.push(position);
        }
    }

    fn touches(&self, range: (Edge, Edge)) -> bool {
        if is_empty(range) {
            return false;
        }
        if self.overlay.values(range.0, range.1).next().is_some() {
            return true;
        }
        let index = self.hidden.partition_point(|(_, end)| match range.0 {
            Bound::Included(from) => *end < from,
            Bound::Excluded(_) | Bound::Unbounded => false,
        });
        self.hidden.get(index).is_some_and(|(start, _)| match range.1 {
            Bound::Excluded(to) => *start < to,
            Bound::Included(_) | Bound::Unbounded => true,
        })
    }

    fn is_hidden(&self, key: &Key) -> bool {
        let index = self.hidden.partition_point(|(_, end)| end < key);
        self.hidden.get(index).is_some_and(|(start, _)| start <= key)
    }

    /// Writes neighbouring pages of one level anew, with the changes between `range`, and returns what stands in
    /// their place.
    fn rewrite<'b>(&'b mut self, level: u8, refs: Vec<Child>, range: (Edge, Edge)) -> Children<'b>
    where
        'a: 'b,
    {
        Box::pin(async move {
            if level == 0 {
                self.rewrite_leaves(refs, range).await
            } else {
                self.rewrite_branches(level, refs, range).await
            }
        })
    }

    async fn rewrite_branches(
        &mut self,
        level: u8,
        refs: Vec<Child>,
        range: (Edge, Edge),
    ) -> Result<Vec<Child>, StoreError> {
        let mut children = Vec::new();
        for child in refs {
            let root = Root { position: child.position, crc: child.crc, level };
            match &*self.core.load_page(root, IoClass::Background).await? {
                TreePage::Branch(page) => children.extend_from_slice(page),
                TreePage::Leaf(_) => unreachable!("decode checks the level"),
            }
            self.drop_page(child.position);
            self.take_turn().await;
        }
        let count = children.len();
        let edge = |index: usize| if index < count { Some(children[index].first) } else { None };
        let between = |from: usize, to: usize| {
            let lower =
                if from == 0 { range.0 } else { edge(from).map_or(Bound::Unbounded, Bound::Included) };
            let upper =
                if to == count { range.1 } else { edge(to).map_or(Bound::Unbounded, Bound::Excluded) };
            (lower, upper)
        };
        let mut out = Vec::with_capacity(count);
        let mut index = 0;
        while index < count {
            if !self.touches(between(index, index + 1)) {
                out.push(children[index]);
                index += 1;
                continue;
            }
            let mut end = index + 1;
            while end < count && self.touches(between(end, end + 1)) {
                end += 1;
            }
            let run = children[index..end].to_vec();
            out.extend(self.rewrite(level - 1, run, between(index, end)).await?);
            index = end;
        }
        if out.is_empty() { Ok(out) } else { self.pack_branches(level, out).await }
    }

    async fn pack_branches(&mut self, level: u8, children: Vec<Child>) -> Result<Vec<Child>, StoreError> {
        let pages = children.len().div_ceil(TREE_CHILDREN_MAX);
        let each = children.len().div_ceil(pages);
        let mut out = Vec::with_capacity(pages);
        for part in children.chunks(each) {
            let first = part[0].first;
            out.push(self.put_page(level, first, TreePage::Branch(part.to_vec())).await?);
        }
        Ok(out)
    }

    async fn rewrite_leaves(
        &mut self,
        refs: Vec<Child>,
        range: (Edge, Edge),
    ) -> Result<Vec<Child>, StoreError> {
        let overlay = self.overlay;
        let mut values = overlay.values(range.0, range.1).peekable();
        let mut out = Vec::new();
        let mut pending = Pending::default();
        for child in refs {
            let root = Root { position: child.position, crc: child.crc, level: 0 };
            let page = self.core.load_page(root, IoClass::Background).await?;
            self.drop_page(child.position);
            let TreePage::Leaf(items) = &*page else { unreachable!("decode checks the level") };
            for (key, old) in items {
                while let Some((new_key, value)) = values.next_if(|(new_key, _)| *new_key < key) {
                    pending.push(*new_key, *value);
                }
                if let Some((_, value)) = values.next_if(|(new_key, _)| *new_key == key) {
                    let (before, after) = (cell_of(Some(*old)), cell_of(Some(*value)));
                    self.freed_cells.extend(before.filter(|_| before != after));
                    pending.push(*key, *value);
                } else if self.is_hidden(key) {
                    self.freed_cells.extend(cell_of(Some(*old)));
                } else {
                    pending.push(*key, *old);
                }
            }
            self.write_full_leaves(&mut pending, &mut out).await?;
            self.take_turn().await;
        }
        for (key, value) in values {
            pending.push(*key, *value);
            if pending.bytes > PENDING_BYTES_MAX {
                self.write_full_leaves(&mut pending, &mut out).await?;
            }
        }
        // What is left is spread evenly: a full leaf and a tiny one would make the next insertion split again.
        let pages = pending.bytes.div_ceil(TREE_ENTRY_BYTES);
        for part in (1..=pages).rev() {
            let goal = pending.bytes.div_ceil(part);
            let items = pending.take(goal);
            out.push(self.put_leaf(items).await?);
        }
        while !pending.items.is_empty() {
            let items = pending.take(TREE_ENTRY_BYTES);
            out.push(self.put_leaf(items).await?);
        }
        Ok(out)
    }

    async fn write_full_leaves(
        &mut self,
        pending: &mut Pending,
        out: &mut Vec<Child>,
    ) -> Result<(), StoreError> {
        while pending.bytes > PENDING_BYTES_MAX {
            let items = pending.take(TREE_ENTRY_BYTES);
            out.push(self.put_leaf(items).await?);
            self.take_turn().await;
        }
        Ok(())
    }

    /// A free page. Half of the area is kept for this moment; readers that began long ago may still hold pages of
    /// earlier trees, and are waited for.
    async fn take_page(&self) -> Result<u64, StoreError> {
        for _ in 0..PAGE_TRIES_MAX {
            if let Some(position) = self.core.state.borrow_mut().pages.take() {
                return Ok(position);
            }
            let clock = self.core.shard.clock();
            clock.sleep_until(clock.now() + PAGE_TRY_INTERVAL).await;
            self.core.release_freed();
        }
        Err(StoreError::Full { needed_bytes: PAGE as u64 })
    }

    async fn put_leaf(&mut self, items: Vec<(Key, Value)>) -> Result<Child, StoreError> {
        let first = items[0].0;
        self.put_page(0, first, TreePage::Leaf(items)).await
    }

    async fn put_page(&mut self, level: u8, first: Key, page: TreePage) -> Result<Child, StoreError> {
        let position = self.take_page().await?;
        self.new_pages.push(position);
        let (bytes, crc) = page.encode(TreePlace { salt: self.core.salt, position, level });
        let follows = self.write.as_ref().is_some_and(|(start, buffer)| {
            buffer.len() < WRITE_BYTES_MAX && start + buffer.len() as u64 == position
        });
        if !follows {
            self.write_out().await?;
            let mut buffer = self.core.shard.pool().take(WRITE_BYTES_MAX).await;
            buffer.set_len(0);
            self.write = Some((position, buffer));
        }
        let (_, buffer) = self.write.as_mut().expect("made above");
        let end = buffer.len();
        buffer.set_len(end + PAGE);
        buffer[end..].copy_from_slice(&bytes);
        self.core.cache.borrow_mut().insert(position, crc, Rc::new(page));
        Ok(Child { first, position, crc })
    }

    async fn write_out(&mut self) -> Result<(), StoreError> {
        let Some((position, buffer)) = self.write.take() else { return Ok(()) };
        let class = IoClass::Background;
        let written =
            self.core.disk().write(class, Position(position), buffer.freeze(), Durability::Cached).await;
        written.map_err(|error| self.core.fail(error))
    }

    async fn take_turn(&mut self) {
        self.turn += 1;
        if self.turn.is_multiple_of(PAGES_PER_TURN) {
            yield_now().await;
        }
    }
}

fn is_empty(range: (Edge, Edge)) -> bool {
    matches!(range, (Bound::Included(from), Bound::Excluded(to)) if from >= to)
}

#[derive(Default)]
struct Pending {
    items: std::collections::VecDeque<(Key, Value)>,
    bytes: usize,
}

impl Pending {
    fn push(&mut self, key: Key, value: Value) {
        self.bytes += TreePage::leaf_entry_bytes(&value);
        self.items.push_back((key, value));
    }

    /// Entries from the front, at least one, up to `goal` bytes (one entry may reach beyond the goal, never beyond a
    /// page).
    fn take(&mut self, goal: usize) -> Vec<(Key, Value)> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some((_, value)) = self.items.front() {
            let next = TreePage::leaf_entry_bytes(value);
            if bytes > 0 && (bytes >= goal || bytes + next > TREE_ENTRY_BYTES) {
                break;
            }
            bytes += next;
            taken.extend(self.items.pop_front());
        }
        self.bytes -= bytes;
        taken
    }
}
