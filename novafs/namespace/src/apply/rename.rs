//! Entries move, take the place of others, and swap.

use nova_units::InodeId;

use crate::answer::{Answer, Code, Done, Failure};
use crate::command::Rename;
use crate::model::{Kind, Name, Namespace, Node, ROOT, Totals};
use crate::path::Path;

/// An entry of a rename.
struct Place<'a> {
    path: Path<'a>,
    parent: InodeId,
    name: &'a str,
}

/// While two entries swap, one of them has this name, which no path can have.
const ASIDE: &str = "\0";

impl Namespace {
    pub(super) fn rename(&mut self, rename: &Rename) -> Result<Answer, Failure> {
        let source = self.rename_place(rename.source_base, &rename.source)?;
        let target = self.rename_place(rename.target_base, &rename.target)?;
        let Some(moved) = self.child(source.parent, source.name) else {
            return Err(Failure::new(Code::NotFound, &rename.source, "no such file or directory"));
        };
        if source.parent == ROOT || target.parent == ROOT {
            let message = "a namespace cannot be moved, nor become one";
            return Err(Failure::new(Code::Invalid, &rename.source, message));
        }
        let replaced = self.child(target.parent, target.name);
        let same_place = source.parent == target.parent && source.name == target.name;
        if rename.exchange {
            let Some(other) = replaced else {
                return Err(Failure::new(Code::NotFound, &rename.target, "no such file or directory"));
            };
            if moved != other {
                self.exchange((&source, moved), (&target, other))?;
            }
            return Ok(Done {}.into());
        }
        let may_replace = rename.replace && !rename.no_replace;
        match replaced {
            Some(_) if same_place => return Ok(Done {}.into()),
            Some(_) if !may_replace => {
                return Err(Failure::new(Code::AlreadyExists, &rename.target, "the name is taken"));
            }
            // Two names of one file: rename(2) leaves both.
            Some(other) if other == moved => return Ok(Done {}.into()),
            _ => {}
        }
        self.check_move((&source, moved), &target, replaced)?;
        if let Some(other) = replaced {
            self.check_replaceable(self.inode(moved).kind(), other, &rename.target)?;
            self.remove_name(target.parent, &Name::from(target.name));
        }
        self.move_name((source.parent, &Name::from(source.name)), (target.parent, target.name));
        Ok(Done {}.into())
    }

    fn rename_place<'a>(&self, base: u64, text: &'a str) -> Result<Place<'a>, Failure> {
        let path = Path::parse_at(base, text)?;
        if path.names().is_empty() && path.base() == ROOT {
            return Err(Failure::new(Code::Invalid, text, "the root cannot be moved"));
        }
        let (parent, name) = self.place(&path)?;
        Ok(Place { path, parent, name })
    }

    /// `moved` may come to `target`, where `replaced` makes room.
    fn check_move(
        &self,
        (source, moved): (&Place<'_>, InodeId),
        target: &Place<'_>,
        replaced: Option<InodeId>,
    ) -> Result<(), Failure> {
        let to = target.path.text();
        self.check_same_keys(source.parent, target.parent, to)?;
        if self.inode(moved).kind() == Kind::Directory && self.is_within(target.parent, moved) {
            return Err(Failure::new(Code::Loop, to, "a directory cannot be moved below itself"));
        }
        self.check_depth(target.parent, self.inode(moved).height(), &target.path)?;
        let common: Vec<InodeId> = self.upwards(source.parent).collect();
        let added = self.weight_of_name(moved, source.parent, source.name);
        let removed = replaced
            .map_or(Totals::default(), |other| self.weight_of_name(other, target.parent, target.name));
        self.check_quota(target.parent, &common, (added, removed), to)
    }

    fn check_replaceable(&self, moved: Kind, other: InodeId, target: &str) -> Result<(), Failure> {
        let refused = |code, message| Err(Failure::new(code, target, message));
        match (moved, &self.inode(other).node) {
            (Kind::Directory, Node::Directory(directory)) if directory.children > 0 => {
                refused(Code::NotEmpty, "the directory of this name has entries")
            }
            (Kind::Directory, Node::Directory(_)) => Ok(()),
            (Kind::Directory, _) => {
                refused(Code::NotADirectory, "something else than a directory has this name")
            }
            (_, Node::Directory(_)) => refused(Code::IsADirectory, "a directory has this name"),
            _ => Ok(()),
        }
    }

    fn exchange(
        &mut self,
        (a, a_id): (&Place<'_>, InodeId),
        (b, b_id): (&Place<'_>, InodeId),
    ) -> Result<(), Failure> {
        self.check_move((a, a_id), b, Some(b_id))?;
        self.check_move((b, b_id), a, Some(a_id))?;
        let (a_name, b_name, aside) = (Name::from(a.name), Name::from(b.name), Name::from(ASIDE));
        self.move_name((a.parent, &a_name), (b.parent, ASIDE));
        self.move_name((b.parent, &b_name), (a.parent, a.name));
        self.move_name((b.parent, &aside), (b.parent, b.name));
        Ok(())
    }
}
