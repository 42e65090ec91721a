//! What a host does that gets the files.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::rc::Rc;

use nova_buf::SharedBuf;
use nova_device::{Clock as _, Shard as _};
use novabulk_files::{Arrival, Digest, Entry, Fault, Kind, Name, Pack, Reply, Verdict, part_name};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::part::{Opened, Part};
use super::{Host, PARTS_MAX, Stopwatch};
use crate::folder::{Folder, Near, Place, dress, file_type, identity, identity_of, names_in, status, times};
use crate::trouble::Trouble;

/// How deep a tree is that is removed.
const REMOVE_DEPTH_MAX: usize = 2048;

/// What the owner of a folder needs to make files in it.
const OWNER_WRITES: u32 = 0o700;

/// What failed of what was done to many.
type Failed = Vec<(u16, Fault, String)>;

impl Host {
    pub(super) async fn offer(
        &self,
        entries: Vec<Entry>,
        checksum: bool,
        dry_run: bool,
        watch: &Stopwatch,
    ) -> Result<Reply, Trouble> {
        let bytes_max = self.options.file_bytes_max;
        let verdicts = self
            .blocking(watch, move |root| {
                let verdict = |entry: &Entry| {
                    let taken = take(root, entry, checksum, dry_run, bytes_max);
                    taken.unwrap_or_else(|Trouble { fault, text }| Verdict::Refused { fault, text })
                };
                Ok(entries.iter().map(verdict).collect())
            })
            .await?;
        Ok(Reply::Offered { verdicts })
    }

    pub(super) async fn open(&self, entry: Entry, watch: &Stopwatch) -> Result<Reply, Trouble> {
        check_name(&entry.name)?;
        if !entry.is_file() || entry.bytes() > self.options.file_bytes_max {
            let text = format!("{} is longer than this host takes, or no file", entry.name);
            return Err(Trouble::new(Fault::NoRoom, text));
        }
        if self.was_published(&entry, watch).await {
            return Ok(Reply::Done);
        }
        let known = self.parts.borrow().get(&entry.name).cloned();
        if let Some(part) = known {
            if part.entry.identity == entry.identity {
                return Ok(holds(&part, 0));
            }
            if !part.is_quiet() {
                return Err(busy(&entry.name));
            }
            self.parts.borrow_mut().remove(&entry.name);
        }
        let begins = self.opening.borrow().len() + self.parts.borrow().len() < PARTS_MAX;
        if !begins || self.opening.borrow().contains(&entry.name) {
            return Err(busy(&entry.name));
        }
        self.opening.borrow_mut().push(entry.name.clone());
        let wanted = entry.clone();
        let opened = self.blocking(watch, move |root| Opened::new(root, &wanted)).await;
        self.opening.borrow_mut().retain(|name| *name != entry.name);
        let part = Rc::new(Part::new(&self.shard, entry, opened?));
        self.parts.borrow_mut().insert(part.entry.name.clone(), Rc::clone(&part));
        Ok(holds(&part, 0))
    }

    pub(super) fn held(&self, name: &Name, from: u32) -> Result<Reply, Trouble> {
        Ok(holds(&*self.part(name)?, from))
    }

    pub(super) async fn write(
        &self,
        name: &Name,
        source: u64,
        block: u32,
        digest: Digest,
        body: Option<SharedBuf>,
        watch: &Stopwatch,
    ) -> Result<Reply, Trouble> {
        let part = self.part(name)?;
        if part.entry.identity.tag() != source {
            let text = format!("{name} comes from another source by now: open it again");
            return Err(Trouble::new(Fault::NotOpen, text));
        }
        let body = body.ok_or_else(|| outside(name, block))?;
        if Digest::of(&body) != digest {
            return Err(Trouble::new(
                Fault::Corrupt,
                format!("block {block} of {name} is not what was read"),
            ));
        }
        let arrival = part.blocks.borrow_mut().arrive(block, body.len());
        let offset = match arrival {
            Arrival::Write { offset, .. } => offset,
            Arrival::Duplicate { written: true } => return Ok(Reply::Done),
            Arrival::Duplicate { written: false } => return Err(busy(name)),
            Arrival::Outside => return Err(outside(name, block)),
        };
        // A task that is dropped here leaves the block as being written, and the file is opened anew some day: no task
        // of a handler is dropped while its shard lives.
        let written = watch.time(&self.shard, part.file.write_at(&body, offset)).await;
        if let Err(error) = written {
            part.blocks.borrow_mut().lost(block);
            return Err(Trouble::io(&error, format!("write {name}")));
        }
        part.blocks.borrow_mut().written(block, digest);
        let now = self.shard.clock().now();
        part.used_at.set(now);
        if part.is_due(now) {
            drop(body);
            watch.time(&self.shard, part.flush(&self.shard)).await?;
        }
        Ok(Reply::Done)
    }

    pub(super) async fn write_pack(
        &self,
        packs: Vec<Pack>,
        body: Option<SharedBuf>,
        watch: &Stopwatch,
    ) -> Result<Reply, Trouble> {
        let expected: u64 = packs.iter().map(|pack| pack.entry.bytes()).sum();
        let body = body.map_or_else(Vec::new, |body| body.to_vec());
        if body.len() as u64 != expected {
            let text = format!("{} bytes for files of {expected}", body.len());
            return Err(Trouble::new(Fault::Invalid, text));
        }
        let names: Vec<Name> = packs.iter().map(|pack| pack.entry.name.clone()).collect();
        if let Some(name) = names.iter().find(|name| self.laying.borrow().contains(*name)) {
            return Err(busy(name));
        }
        self.laying.borrow_mut().extend(names.iter().cloned());
        let done = self.lay_pack(packs, body, watch).await;
        let mut laying = self.laying.borrow_mut();
        names.iter().for_each(|name| {
            laying.remove(name);
        });
        drop(laying);
        done.map(|failed| Reply::Each { failed })
    }

    /// Temporary files, one flush for all, then their names.
    async fn lay_pack(&self, packs: Vec<Pack>, body: Vec<u8>, watch: &Stopwatch) -> Result<Failed, Trouble> {
        let (laid, mut failed) = self.blocking(watch, move |root| Ok(lay_all(root, packs, &body))).await?;
        if let Some(first) = laid.first() {
            let folder = first.place.folder.try_clone();
            let folder = folder.map_err(|error| Trouble::io(&error, "flush the file system"))?;
            let flushing = self.flushes.flush(&self.shard, first.device, folder);
            watch.time(&self.shard, flushing).await?;
        }
        let named = self.blocking(watch, move |_| Ok(name_all(laid))).await?;
        failed.extend(named);
        failed.sort_by_key(|(place, _, _)| *place);
        Ok(failed)
    }

    pub(super) async fn publish(
        &self,
        name: Name,
        blocks: u32,
        root: Digest,
        watch: &Stopwatch,
    ) -> Result<Reply, Trouble> {
        let part = self.part(&name)?;
        if !part.is_quiet() {
            return Err(busy(&name));
        }
        let (count, ours) = part.blocks.borrow().root();
        if count != blocks {
            return Err(Trouble::new(
                Fault::Missing,
                format!("{count} of {blocks} blocks of {name} are here"),
            ));
        }
        if ours != root {
            // Nothing of it can be believed, so the next attempt begins anew.
            let discarding = part.publishing()?;
            self.parts.borrow_mut().remove(&name);
            self.blocking(watch, move |_| {
                discarding.discard();
                Ok(())
            })
            .await?;
            return Err(Trouble::new(Fault::Corrupt, format!("{name} is not the file that was sent")));
        }
        let publishing = part.publishing()?;
        // Blocks that are late find no open file from here on.
        self.parts.borrow_mut().remove(&name);
        let source = part.entry.identity;
        drop(part);
        let target = self.blocking(watch, move |_| publishing.publish()).await?;
        self.published.borrow_mut().add(name, source, target);
        Ok(Reply::Done)
    }

    pub(super) async fn abandon(&self, name: Name, watch: &Stopwatch) -> Result<Reply, Trouble> {
        let part = self.part(&name)?;
        if !part.is_quiet() {
            return Err(busy(&name));
        }
        let publishing = part.publishing()?;
        self.parts.borrow_mut().remove(&name);
        self.blocking(watch, move |_| {
            publishing.discard();
            Ok(Reply::Done)
        })
        .await
    }

    pub(super) async fn link(&self, name: Name, existing: Name, watch: &Stopwatch) -> Result<Reply, Trouble> {
        check_name(&name)?;
        self.blocking(watch, move |root| link(root, &name, &existing).map(|()| Reply::Done)).await
    }

    pub(super) async fn settle(&self, entries: Vec<Entry>, watch: &Stopwatch) -> Result<Reply, Trouble> {
        self.blocking(watch, move |root| {
            let settle = |entry: &Entry| {
                let flags = OFlags::RDONLY | OFlags::NONBLOCK;
                let open = root.open_below(&entry.name, flags, Mode::empty())?;
                dress(open, entry)
            };
            Ok(Reply::Each { failed: each(&entries, settle) })
        })
        .await
    }

    pub(super) async fn remove(&self, names: Vec<Name>, watch: &Stopwatch) -> Result<Reply, Trouble> {
        self.blocking(watch, move |root| {
            let remove = |name: &Name| {
                let place = root.place(name)?;
                remove_all(&place.folder, place.last(), 0)
                    .map_err(|error| Trouble::of(error, format!("remove {name}")))
            };
            Ok(Reply::Each { failed: each(&names, remove) })
        })
        .await
    }

    pub(super) async fn sync(&self, folder: Name, watch: &Stopwatch) -> Result<Reply, Trouble> {
        let (folder, device) = self
            .blocking(watch, move |root| {
                let open = root.open_below(&folder, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
                let device = identity_of(&open).map_err(|error| Trouble::of(error, "look at the folder"))?;
                Ok((open, device.device))
            })
            .await?;
        watch.time(&self.shard, self.flushes.flush(&self.shard, device, folder)).await?;
        Ok(Reply::Done)
    }

    fn part(&self, name: &Name) -> Result<Rc<Part>, Trouble> {
        let part = self.parts.borrow().get(name).cloned();
        let part =
            part.ok_or_else(|| Trouble::new(Fault::NotOpen, format!("{name} is not open: open it again")))?;
        part.used_at.set(self.shard.clock().now());
        Ok(part)
    }

    /// Whether this source was published here, and the file is still what it was then.
    async fn was_published(&self, entry: &Entry, watch: &Stopwatch) -> bool {
        let known = self.published.borrow().by_name.get(&entry.name).copied();
        let Some((source, target)) = known else { return false };
        let name = entry.name.clone();
        source == entry.identity
            && self
                .blocking(watch, move |root| root.entry(&name))
                .await
                .is_ok_and(|now| now.identity == target)
    }
}

fn holds(part: &Part, from: u32) -> Reply {
    let (blocks, next) = part.blocks.borrow().held(from);
    Reply::Holds { blocks, next }
}

fn busy(name: &Name) -> Trouble {
    Trouble::new(Fault::Busy, format!("{name} is being written: ask again"))
}

fn outside(name: &Name, block: u32) -> Trouble {
    Trouble::new(Fault::Invalid, format!("{name} has no block {block} of that length"))
}

/// Names of our temporary files are not for others.
fn check_name(name: &Name) -> Result<(), Trouble> {
    if name.is_part() {
        let text = format!("{name} is a name of temporary files: rename it at the source");
        return Err(Trouble::new(Fault::Invalid, text));
    }
    Ok(())
}

/// Does `work` to each, and tells what failed by its place.
fn each<T>(items: &[T], work: impl Fn(&T) -> Result<(), Trouble>) -> Failed {
    let failed = items.iter().enumerate().filter_map(|(place, item)| {
        let Trouble { fault, mut text } = work(item).err()?;
        text.truncate(text.floor_char_boundary(200));
        Some((u16::try_from(place).expect("a list of a head"), fault, text))
    });
    // All that fails goes into one head.
    failed.take(200).collect()
}

/// Makes a directory or a link; says of a file whether it is wanted.
fn take(
    root: &Folder,
    entry: &Entry,
    checksum: bool,
    dry_run: bool,
    bytes_max: u64,
) -> Result<Verdict, Trouble> {
    check_name(&entry.name)?;
    if entry.bytes() > bytes_max {
        let text = format!("{} has {} bytes, and this host takes {bytes_max}", entry.name, entry.bytes());
        return Err(Trouble::new(Fault::NoRoom, text));
    }
    if entry.name.is_root() {
        return Ok(Verdict::Same);
    }
    let place = match root.place(&entry.name) {
        // In a dry run the folder above was not made.
        Err(trouble) if dry_run && trouble.fault == Fault::NotFound => {
            return Ok(if entry.is_file() { Verdict::Wanted } else { Verdict::Made });
        }
        place => place?,
    };
    let stat = match status(&place.folder, place.last(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Some(stat),
        Err(Errno::NOENT) => None,
        Err(error) => return Err(Trouble::of(error, format!("look at {}", entry.name))),
    };
    let is_folder = stat.as_ref().is_some_and(|stat| file_type(stat).is_dir());
    match &entry.kind {
        Kind::Directory if is_folder => {
            let mode = stat.map_or(0, |stat| u32::from(stat.stx_mode));
            // Its own mode comes at the end; until then its owner has to write in it.
            if !dry_run && mode & OWNER_WRITES != OWNER_WRITES {
                set_mode(root, entry, mode & 0o7777 | OWNER_WRITES)?;
            }
            Ok(Verdict::Same)
        }
        _ if is_folder => {
            let text = format!("{} is a directory at the target: move it away", entry.name);
            Err(Trouble::new(Fault::InTheWay, text))
        }
        Kind::Directory => make_folder(&place, entry, stat.is_some(), dry_run),
        Kind::Link { target } => make_link(&place, entry, target, dry_run),
        Kind::File { .. } => {
            let stat = stat.filter(|stat| file_type(stat).is_file());
            let mode = stat.as_ref().map(|stat| Entry::mode_of(stat.stx_mode.into()));
            let there = stat.map(|stat| identity(&stat));
            let same_length = there.is_some_and(|there| there.bytes == entry.bytes());
            let same_time = there.is_some_and(|there| there.modified == entry.identity.modified);
            Ok(match (same_length, checksum) {
                (true, true) => Verdict::Compare,
                (true, false) if same_time => {
                    if !dry_run && mode != Some(entry.mode) {
                        set_mode(root, entry, entry.mode.into())?;
                    }
                    Verdict::Same
                }
                _ => Verdict::Wanted,
            })
        }
    }
}

fn set_mode(root: &Folder, entry: &Entry, mode: u32) -> Result<(), Trouble> {
    let open = root.open_below(&entry.name, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
    rustix::fs::fchmod(open, Mode::from_raw_mode(mode))
        .map_err(|error| Trouble::of(error, format!("set the mode of {}", entry.name)))
}

fn make_folder(place: &Place, entry: &Entry, replaces: bool, dry_run: bool) -> Result<Verdict, Trouble> {
    if dry_run {
        return Ok(Verdict::Made);
    }
    let failed = |error| Trouble::of(error, format!("make the folder {}", entry.name));
    if replaces {
        rustix::fs::unlinkat(&place.folder, place.last(), AtFlags::empty()).map_err(failed)?;
    }
    // Ours to write while the copy lasts; its own mode comes at the end.
    let mode = Mode::from_raw_mode(0o700 | u32::from(entry.mode & 0o777));
    match rustix::fs::mkdirat(&place.folder, place.last(), mode) {
        Ok(()) | Err(Errno::EXIST) => Ok(Verdict::Made),
        Err(error) => Err(failed(error)),
    }
}

fn make_link(place: &Place, entry: &Entry, target: &[u8], dry_run: bool) -> Result<Verdict, Trouble> {
    let there = rustix::fs::readlinkat(&place.folder, place.last(), Vec::new());
    if there.is_ok_and(|there| there.as_bytes() == target) {
        return Ok(Verdict::Same);
    }
    if dry_run {
        return Ok(Verdict::Made);
    }
    let failed = |error| Trouble::of(error, format!("make the link {}", entry.name));
    let part = part_name(&entry.name, &entry.identity);
    // An attempt that was cut short may have left it.
    let _ = rustix::fs::unlinkat(&place.folder, part.as_str(), AtFlags::empty());
    rustix::fs::symlinkat(OsStr::from_bytes(target), &place.folder, part.as_str()).map_err(failed)?;
    rustix::fs::utimensat(&place.folder, part.as_str(), &times(entry), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(failed)?;
    rustix::fs::renameat(&place.folder, part.as_str(), &place.folder, place.last()).map_err(failed)?;
    Ok(Verdict::Made)
}

/// A small file under its temporary name.
#[derive(Debug)]
struct Laid {
    index: u16,
    name: Name,
    place: Place,
    part: String,
    device: u64,
}

/// Writes the files of a pack under temporary names; those of other file systems than the first's are flushed here.
fn lay_all(root: &Folder, packs: Vec<Pack>, mut body: &[u8]) -> (Vec<Laid>, Failed) {
    let (mut laid, mut failed): (Vec<Laid>, Failed) = (Vec::new(), Vec::new());
    let mut near = Near::default();
    for (index, pack) in packs.into_iter().enumerate() {
        let index = u16::try_from(index).expect("a list of a head");
        let bytes = usize::try_from(pack.entry.bytes()).expect("a small file");
        let (content, rest) = body.split_at(bytes);
        body = rest;
        let first_device = laid.first().map(|first| first.device);
        match lay(root, &mut near, index, &pack, content, first_device) {
            Ok(one) => laid.push(one),
            Err(Trouble { fault, mut text }) => {
                text.truncate(text.floor_char_boundary(64));
                failed.push((index, fault, text));
            }
        }
    }
    (laid, failed)
}

fn lay(
    root: &Folder,
    near: &mut Near,
    index: u16,
    pack: &Pack,
    content: &[u8],
    first_device: Option<u64>,
) -> Result<Laid, Trouble> {
    let entry = &pack.entry;
    check_name(&entry.name)?;
    if Digest::of(content) != pack.digest {
        return Err(Trouble::new(Fault::Corrupt, format!("{} is not what was read", entry.name)));
    }
    let place = root.place_near(&entry.name, near)?;
    let part = part_name(&entry.name, &entry.identity);
    let device = create(&place, &part, entry, content, first_device).inspect_err(|_| {
        let _ = rustix::fs::unlinkat(&place.folder, part.as_str(), AtFlags::empty());
    })?;
    Ok(Laid { index, name: entry.name.clone(), place, part, device })
}

/// Tells the file system that the new file is in.
fn create(
    place: &Place,
    part: &str,
    entry: &Entry,
    content: &[u8],
    first_device: Option<u64>,
) -> Result<u64, Trouble> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let failed = |error| Trouble::of(error, format!("write {}", entry.name));
    let file: OwnedFd =
        rustix::fs::openat(&place.folder, part, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
    let mut file = File::from(file);
    file.write_all(content).map_err(|error| Trouble::io(&error, format!("write {}", entry.name)))?;
    dress(&file, entry)?;
    let device = identity_of(&file).map_err(failed)?.device;
    if first_device.is_some_and(|first| first != device) {
        rustix::fs::fsync(&file).map_err(failed)?;
    }
    Ok(device)
}

/// Gives the files their names.
fn name_all(laid: Vec<Laid>) -> Failed {
    let named = laid.into_iter().filter_map(|one| {
        let folder = &one.place.folder;
        let error = rustix::fs::renameat(folder, one.part.as_str(), folder, one.place.last()).err()?;
        let _ = rustix::fs::unlinkat(folder, one.part.as_str(), AtFlags::empty());
        let trouble = Trouble::of(error, format!("publish {}", one.name));
        Some((one.index, trouble.fault, trouble.text))
    });
    named.collect()
}

fn link(root: &Folder, name: &Name, existing: &Name) -> Result<(), Trouble> {
    let (place, from) = (root.place(name)?, root.place(existing)?);
    let failed = |error| Trouble::of(error, format!("link {name} to {existing}"));
    let look = |place: &Place| status(&place.folder, place.last(), AtFlags::SYMLINK_NOFOLLOW);
    let source = identity(&look(&from).map_err(failed)?);
    match look(&place) {
        // A rename of one name over another of the same file does nothing, so it is not tried.
        Ok(stat) if (identity(&stat).device, identity(&stat).inode) == (source.device, source.inode) => {
            return Ok(());
        }
        Ok(stat) if file_type(&stat).is_dir() => return Err(failed(Errno::ISDIR)),
        _ => {}
    }
    let part = part_name(name, &source);
    let _ = rustix::fs::unlinkat(&place.folder, part.as_str(), AtFlags::empty());
    rustix::fs::linkat(&from.folder, from.last(), &place.folder, part.as_str(), AtFlags::empty())
        .map_err(failed)?;
    rustix::fs::renameat(&place.folder, part.as_str(), &place.folder, place.last()).map_err(failed)
}

/// Removes an entry, with all below it; links are removed, not followed.
fn remove_all(folder: &OwnedFd, last: &OsStr, depth: usize) -> Result<(), Errno> {
    match rustix::fs::unlinkat(folder, last, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) if depth < REMOVE_DEPTH_MAX => {}
        Err(error) => return Err(error),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let inside = rustix::fs::openat(folder, last, flags, Mode::empty())?;
    for name in names_in(&inside)? {
        remove_all(&inside, OsStr::from_bytes(&name), depth + 1)?;
    }
    rustix::fs::unlinkat(folder, last, AtFlags::REMOVEDIR)
}
