//! Drives a copy: asks the source what it has, the target what it wants, and moves it.

mod finish;
mod send;
mod walk;

use core::cell::Cell;
use std::rc::Rc;

use nova_shard::RealShard;
use novabulk_files::{Entry, Fault, Identity, Kind, Name, Orders, Reply, Request, Verdict};

use crate::end::End;
use crate::filter::Filter;
use crate::tally::Tally;
use crate::trouble::CopyError;

/// Mode of a folder that only the name of the target asks for.
const FOLDER_MODE: u16 = 0o755;

/// What is copied, below the folder that its host serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name.
    pub name: Name,
    /// Whether the content of the directory is meant, not the directory.
    pub content: bool,
}

/// One copy.
#[derive(Clone, Debug)]
pub struct Job {
    /// What, all of one host.
    pub sources: Vec<Source>,
    /// Where to.
    pub target: Name,
    /// Whether the target is a folder in any case. Else a single file that is copied becomes the target, unless that is a
    /// folder.
    pub into: bool,
    /// How.
    pub orders: Orders,
}

/// An entry on its way: what the source calls it, and what the target will.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// As the source told it.
    pub(crate) entry: Entry,
    /// Its name at the target.
    pub(crate) target: Name,
    /// Its name below what was asked for, for patterns.
    pub(crate) relative: Name,
}

impl Item {
    /// The entry as the target knows it.
    pub(crate) fn at_target(&self) -> Entry {
        Entry { name: self.target.clone(), ..self.entry.clone() }
    }
}

/// What all parts of the driver know.
pub(crate) struct Copy<'a> {
    pub(crate) shard: &'a RealShard,
    pub(crate) source: &'a End,
    pub(crate) target: &'a End,
    pub(crate) orders: &'a Orders,
    pub(crate) filter: Filter,
    pub(crate) tally: &'a Tally,
    /// Whether anything beside files was made at the target.
    pub(crate) changed: Cell<bool>,
}

/// Copies, from `source` to `target`, what `job` says. Files that are there already stay.
///
/// # Errors
/// When an end does not answer or what was asked for is not there. What failed of single entries is in `tally`.
///
/// # Cancel safety
/// Safe: what has come of a file stays beside it, and the next copy goes on there.
pub async fn copy(
    shard: &RealShard,
    source: &End,
    target: &End,
    job: &Job,
    tally: &Rc<Tally>,
) -> Result<(), CopyError> {
    let filter = Filter::new(&job.orders.include, &job.orders.exclude)?;
    let copy = Copy { shard, source, target, orders: &job.orders, filter, tally, changed: Cell::new(false) };
    let job = &copy.decided(job).await?;
    let items = copy.walk(job).await?;
    tally.count(|counts| counts.entries = items.len() as u64);
    let (items, links) = finish::part_links(items);
    copy.make_target(job).await?;
    if job.orders.dry_run {
        copy.offer(&items, |_| {}).await?;
    } else {
        copy.send(&items).await?;
        copy.link(&items, &links).await?;
    }
    if job.orders.delete {
        copy.delete(job, &items, &links).await?;
    }
    if !job.orders.dry_run {
        copy.settle(&items).await?;
        if copy.changed.get() || tally.counts().files > 0 {
            copy.target.ask(Request::Sync { folder: copy.sync_folder(job) }, None).await?;
        }
    }
    Ok(())
}

impl Copy<'_> {
    /// The job, with what depends on what the ends have: whether the target is a folder.
    async fn decided(&self, job: &Job) -> Result<Job, CopyError> {
        let mut job = job.clone();
        if let [Source { name, content: false }] = job.sources.as_slice()
            && !job.into
        {
            job.into =
                self.is_folder(self.source, name).await? || self.is_folder(self.target, &job.target).await?;
        } else {
            job.into = true;
        }
        Ok(job)
    }

    async fn is_folder(&self, end: &End, name: &Name) -> Result<bool, CopyError> {
        match end.ask(Request::Stat { name: name.clone() }, None).await {
            Ok(answered) => {
                Ok(matches!(answered.reply, Reply::Status { entry } if entry.kind == Kind::Directory))
            }
            Err(CopyError::Host(trouble)) if trouble.fault == Fault::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether a folder that leads to the target is there. What else has its name is left alone, links above all.
    async fn is_there(&self, name: &Name) -> Result<bool, CopyError> {
        match self.target.ask(Request::Stat { name: name.clone() }, None).await {
            Ok(answered) if matches!(&answered.reply, Reply::Status { entry } if entry.kind == Kind::Directory) => {
                Ok(true)
            }
            Ok(_) => {
                let text = format!(
                    "{name} is a file or a symbolic link, and no link is followed: name the folder it leads to"
                );
                Err(crate::Trouble::new(Fault::InTheWay, text).into())
            }
            Err(CopyError::Host(trouble)) if trouble.fault == Fault::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes the folders that lead to where the copy goes.
    async fn make_target(&self, job: &Job) -> Result<(), CopyError> {
        let mut folder =
            if job.into { Some(job.target.clone()) } else { job.target.split().map(|(above, _)| above) };
        let mut folders = Vec::new();
        while let Some(name) = folder.filter(|name| !name.is_root()) {
            folder = name.split().map(|(above, _)| above);
            folders.push(name);
        }
        let mut entries = Vec::new();
        for name in folders.into_iter().rev() {
            if entries.is_empty() && self.is_there(&name).await? {
                continue;
            }
            let identity = Identity::default();
            entries.push(Entry {
                name,
                mode: FOLDER_MODE,
                identity,
                xattrs: Vec::new(),
                kind: Kind::Directory,
            });
        }
        if entries.is_empty() {
            return Ok(());
        }
        let offer = Request::Offer { entries, checksum: false, dry_run: self.orders.dry_run };
        let Reply::Offered { verdicts } = self.target.ask(offer, None).await?.reply else {
            return Err(self.target.wrong("an offer is answered with something else"));
        };
        let refused = verdicts.into_iter().find_map(|verdict| match verdict {
            Verdict::Refused { fault, text } => Some(crate::Trouble { fault, text }),
            _ => None,
        });
        refused.map_or(Ok(()), |trouble| Err(trouble.into()))
    }

    /// Offers all to the target, a page at a time; tells of each which files it wants, by their place.
    async fn offer(&self, items: &[Item], wants: impl Fn(&[usize])) -> Result<(), CopyError> {
        let mut begin = 0;
        while begin < items.len() {
            self.check_stopped()?;
            let end = walk::page_end(items, begin);
            let entries = items[begin..end].iter().map(Item::at_target).collect();
            let offer =
                Request::Offer { entries, checksum: self.orders.checksum, dry_run: self.orders.dry_run };
            let answered = self.target.ask(offer, None).await?;
            let Reply::Offered { verdicts } = answered.reply else {
                return Err(self.target.wrong("an offer is answered with something else"));
            };
            if verdicts.len() != end - begin {
                return Err(self.target.wrong("an offer is answered in part"));
            }
            let mut wanted = Vec::new();
            for (place, verdict) in (begin..end).zip(verdicts) {
                if self.is_wanted(&items[place], verdict).await? {
                    wanted.push(place);
                }
            }
            let bytes: u64 = wanted.iter().map(|&place| items[place].entry.bytes()).sum();
            self.tally.count(|counts| {
                counts.files_total += wanted.len() as u64;
                counts.bytes_total += bytes;
            });
            wants(&wanted);
            begin = end;
        }
        Ok(())
    }

    async fn is_wanted(&self, item: &Item, verdict: Verdict) -> Result<bool, CopyError> {
        match verdict {
            Verdict::Wanted => return Ok(true),
            Verdict::Compare => {
                if !self.is_same(item).await? {
                    return Ok(true);
                }
                if !self.orders.dry_run {
                    self.dress(item).await?;
                }
                self.tally.count(|counts| counts.same += 1);
            }
            Verdict::Same if item.entry.is_file() => self.tally.count(|counts| counts.same += 1),
            Verdict::Same => {}
            Verdict::Made => self.changed.set(true),
            Verdict::Refused { text, .. } => self.tally.fail(text),
        }
        Ok(false)
    }

    /// Whether both ends have the same bytes.
    async fn is_same(&self, item: &Item) -> Result<bool, CopyError> {
        let ours = self.source.ask(Request::Digest { name: item.entry.name.clone() }, None);
        let theirs = self.target.ask(Request::Digest { name: item.target.clone() }, None);
        let (ours, theirs) = (ours.await?.reply, theirs.await?.reply);
        Ok(matches!(&ours, Reply::DigestIs { .. }) && ours == theirs)
    }

    /// Gives a file that has the right bytes the rest too.
    async fn dress(&self, item: &Item) -> Result<(), CopyError> {
        let settle = Request::Settle { entries: vec![item.at_target()] };
        self.each(settle, |_| item.target.to_string()).await
    }

    /// Asks the target to do something to many, and notes what failed.
    pub(crate) async fn each(
        &self,
        request: Request,
        name: impl Fn(usize) -> String,
    ) -> Result<(), CopyError> {
        let Reply::Each { failed } = self.target.ask(request, None).await?.reply else {
            return Err(self.target.wrong("what is done to many is answered with something else"));
        };
        for (place, _, text) in failed {
            self.tally.fail(format!("{}: {text}", name(place.into())));
        }
        Ok(())
    }

    /// Error when the copy was asked to end.
    pub(crate) fn check_stopped(&self) -> Result<(), CopyError> {
        if self.tally.is_stopped() {
            let text = "stopped; run the same command again, and it goes on where it was";
            return Err(crate::Trouble::new(Fault::Busy, text).into());
        }
        Ok(())
    }
}
