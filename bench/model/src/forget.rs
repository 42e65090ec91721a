//! What cannot matter any more is made equal, so that worlds that differ in nothing else are one. Each of these is read
//! by no step and no check from here on, or only by steps after which all is equal again.

use crate::host_set::{HOSTS, HostSet};
use crate::log::Log;
use crate::rules::{Broken, Rules};
use crate::world::{Disk, World};

impl World {
    /// Forgets what cannot matter any more.
    pub(crate) fn forget(&mut self, rules: &Rules) {
        // A view that is forgotten may have been the last reason to keep another one.
        while (0..HOSTS).any(|host| self.forget_view(host, rules)) {}
        for host in 0..HOSTS {
            self.forget_knowledge(host);
            self.forget_devices(host, rules);
        }
        if self.is_last_epoch(rules) {
            self.forget_future(rules);
        }
        self.rename_entries();
    }

    /// A host of an epoch that is over forgets it when nothing can come of it: it can neither read, nor commit, nor be sent
    /// anything. It may still adopt the newest epoch, and it may crash; both forget the view.
    fn forget_view(&mut self, host: usize, rules: &Rules) -> bool {
        let it = &self.hosts[host];
        let view = it.view;
        if !view.exists() || view.epoch >= self.control.epoch {
            return false;
        }
        let leads = view.is_led_by(host);
        let reads = if view.is_lone(host) {
            it.node_lease
        } else {
            let lacking = view.others(host).without(it.leases);
            view.in_sync.contains(host) && self.met(host, lacking) == lacking
        };
        let others = self.hosts_that(|other| other.view.epoch == view.epoch).without(HostSet::of(host));
        let works = !others.is_empty() && (leads || others.contains(view.primary.into()));
        let commits = leads && it.ready && (self.agreed(host) > it.disk.commit || rules.broken.is_some());
        if reads || works || commits {
            return false;
        }
        self.hosts[host].forget_view();
        true
    }

    /// What a primary knows but does not use.
    fn forget_knowledge(&mut self, host: usize) {
        let it = &mut self.hosts[host];
        if it.disk.commit >= it.settled {
            // Everything of earlier primaries is committed, and stays so.
            it.settled = 0;
        }
    }

    fn forget_devices(&mut self, host: usize, rules: &Rules) {
        let crashes = rules.bounds.crashes.saturating_sub(self.crashes);
        let is_out = !self.control.members().with(self.control.writable).contains(host);
        let it = &mut self.hosts[host];
        // An image is read by a start from it, after a crash if the host is up, and emptied unless its trail names the mount
        // that the controllers know.
        let is_believed = |disk: &Disk| !disk.past && (disk.traced || rules.breaks(Broken::OldImageBelieved));
        let needed = u8::from(it.up);
        if !is_believed(&it.image) || crashes < needed || self.amnesias >= rules.bounds.amnesias {
            it.image = Disk::LOST;
        }
        // Devices that the controllers are going to empty.
        if !it.known && it.amnesic && !is_believed(&it.disk) {
            it.disk = Disk::LOST;
        }
        // Who can only come back as a new joiner discards this, and is read by nobody before. Not so one that joined: it
        // may be admitted as it is.
        if !it.view.exists() && is_out {
            it.disk.log = it.disk.log.first(it.disk.commit);
        }
    }

    /// In the last epoch nobody is taken, joins or is brought back any more.
    fn forget_future(&mut self, rules: &Rules) {
        self.crashes = rules.bounds.crashes;
        self.amnesias = rules.bounds.amnesias;
        self.reported = false;
        self.control.writable = HostSet::default();
        for host in 0..HOSTS {
            let holds = self.control.in_sync.contains(host) && self.has_its_life(host);
            let adopts = self.may_adopt(host);
            let it = &mut self.hosts[host];
            it.image = Disk::LOST;
            if it.view.exists() || adopts {
                continue;
            }
            it.crash();
            it.amnesic = !holds;
            if !holds {
                it.disk = Disk::LOST;
            }
        }
    }

    /// Entries are compared with each other only, so those that are left may be counted anew.
    fn rename_entries(&mut self) {
        let logs = self.hosts.iter().flat_map(|host| [host.disk.log, host.image.log]);
        let used = logs
            .chain([self.acknowledged])
            .flat_map(Log::entries)
            .fold(0u16, |used, entry| used | 1 << entry);
        if (used >> 1).trailing_ones() == used.count_ones() {
            return;
        }
        let rename = |log: Log| {
            let mut renamed = Log::default();
            for entry in log.entries() {
                let below = used & ((1 << entry) - 1);
                renamed.push(u8::try_from(below.count_ones() + 1).expect("as many as entries"));
            }
            renamed
        };
        for host in &mut self.hosts {
            host.disk.log = rename(host.disk.log);
            host.image.log = rename(host.image.log);
        }
        self.acknowledged = rename(self.acknowledged);
    }
}
