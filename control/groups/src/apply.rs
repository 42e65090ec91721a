//! State and command make the next state and an answer.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use nova_units::{BootId, DeviceId, Epoch, GroupId, Incarnation, NodeId, Replicas, Timestamp};

use crate::command::{
    AddJoining, Admit, Answer, CloseDevice, Command, CreateGroups, Drop, FailDevice, ForgetDevice,
    Incarnated, Mount, MovePrimary, NewGroup, Op, Outcome, PaceDevice, Reinstate, Restart,
};
use crate::load::Load;
use crate::model::{Device, DeviceState, Flaps, Group, Groups, Member, Role, WRITABLE_MIN};
use crate::plan::GROUPS_MAX;

/// Two drops within this time make a host wait before it joins again.
const FLAP_WINDOW: Duration = Duration::from_secs(600);
/// The first such wait; it doubles.
const FLAP_WAIT_MIN: Duration = Duration::from_secs(60);
/// The longest.
const FLAP_WAIT_MAX: Duration = Duration::from_secs(1800);
/// Drops of one host within this time of the first are one event.
const SAME_EVENT: Duration = Duration::from_secs(30);

impl Groups {
    /// Applies a command.
    pub fn apply(&mut self, command: &Command) -> Answer {
        self.clock = self.clock.max(Timestamp(command.at_ms));
        match &command.op {
            Some(Op::CreateGroups(create)) => self.create(create),
            Some(Op::Drop(drop)) => self.drop_members(drop),
            Some(Op::AddJoining(add)) => self.add_joining(add),
            Some(Op::Admit(admit)) => self.admit(admit),
            Some(Op::Reinstate(reinstate)) => self.reinstate(reinstate),
            Some(Op::Restart(restart)) => self.restart(restart),
            Some(Op::FailDevice(fail)) => self.fail_device(fail),
            Some(Op::MovePrimary(moved)) => self.move_primary(moved),
            Some(Op::ForgetDevice(forget)) => self.forget_device(forget),
            Some(Op::CloseDevice(close)) => self.close_device(close),
            Some(Op::PaceDevice(pace)) => self.pace_device(pace),
            None => refused("this controller does not know the command; upgrade it"),
        }
    }
}

fn refused(reason: &'static str) -> Answer {
    Answer { refused: Some(reason), ..Answer::default() }
}

impl Groups {
    fn create(&mut self, create: &CreateGroups) -> Answer {
        if self.groups.len() + create.groups.len() > GROUPS_MAX {
            return refused("a region has at most 4,096 groups");
        }
        // All or none: a layout that no longer fits is planned again.
        let mut made = Vec::with_capacity(create.groups.len());
        let mut load = Load::of(self);
        for new in &create.groups {
            match self.new_group(new, &create.namespace, &mut load) {
                Ok(group) => made.push(group),
                Err(reason) => return refused(reason),
            }
        }
        let mut answer = Answer::default();
        for group in made {
            self.last_group += 1;
            let id = GroupId(self.last_group);
            answer.groups.push((id, Outcome::Changed(group.epoch)));
            self.groups.insert(id, group);
        }
        answer
    }

    fn new_group(&self, new: &NewGroup, namespace: &str, load: &mut Load) -> Result<Group, &'static str> {
        let nodes: BTreeSet<NodeId> = new.nodes.iter().copied().map(NodeId).collect();
        let replicas = u32::try_from(nodes.len()).ok().and_then(Replicas::new);
        let Some(replicas) = replicas.filter(|_| nodes.len() == new.nodes.len()) else {
            return Err("a group has two to five different hosts");
        };
        let primary = NodeId(new.primary);
        if !nodes.contains(&primary) {
            return Err("the primary is one of the members");
        }
        let member = |node: &NodeId| {
            let incarnation = load.lightest(self, *node).ok_or("a host has no device that serves")?;
            Ok(Member { node: *node, incarnation, role: Role::InSync })
        };
        let members = nodes.iter().map(member).collect::<Result<Vec<_>, &str>>()?;
        let homes: Vec<_> = members.iter().map(|member| (member.node, member.incarnation)).collect();
        for (_, incarnation) in &homes {
            load.add(*incarnation);
        }
        Ok(Group {
            namespace: namespace.to_owned(),
            replicas,
            epoch: Epoch(1),
            primary,
            last_writable: homes.clone(),
            members,
            homes,
            short_since: None,
        })
    }

    /// Changes one group if it still has `epoch`; the change raises it by one.
    fn change(
        &mut self,
        id: u32,
        epoch: u64,
        change: impl FnOnce(&mut Group) -> Result<(), &'static str>,
    ) -> (GroupId, Outcome) {
        let id = GroupId(id);
        let Some(group) = self.groups.get(&id) else { return (id, Outcome::Refused("no such group")) };
        if group.epoch != Epoch(epoch) {
            return (id, Outcome::Stale);
        }
        let mut group = group.clone();
        if let Err(reason) = change(&mut group) {
            return (id, Outcome::Refused(reason));
        }
        (id, Outcome::Changed(self.settle(id, group)))
    }

    /// Stores a changed group under its next epoch.
    fn settle(&mut self, id: GroupId, mut group: Group) -> Epoch {
        group.epoch = group.epoch.next();
        group.members.sort_by_key(|member| member.node);
        let wanted = group.replicas.count();
        assert!(group.members.len() <= wanted + 1, "{id} has too many members");
        assert!(group.in_sync().count() <= wanted, "{id} has too many members in sync");
        if group.is_whole() {
            // Whole: its members are at home, also where a move was given up.
            group.homes = group.members.iter().map(|member| (member.node, member.incarnation)).collect();
        }
        if !group.in_sync().any(|member| member.node == group.primary) {
            group.primary = group
                .in_sync()
                .map(|member| member.node)
                .min_by_key(|node| (self.primaries(*node), *node))
                .expect("a group never loses its last in-sync member");
        }
        if !group.frozen() {
            group.last_writable = group.in_sync().map(|member| (member.node, member.incarnation)).collect();
        }
        let short = group.in_sync().count() < group.homes.len();
        group.short_since = short.then(|| group.short_since.unwrap_or(self.clock));
        let epoch = group.epoch;
        self.groups.insert(id, group);
        epoch
    }

    fn drop_members(&mut self, drop: &Drop) -> Answer {
        let mut answer = Answer::default();
        let mut dropped = BTreeSet::new();
        for entry in &drop.groups {
            let nodes: BTreeSet<NodeId> = entry.nodes.iter().copied().map(NodeId).collect();
            let load = Load::of(self);
            let rebuilt_on = |node: &NodeId| load.lightest(self, *node).filter(|_| drop.rebuilt);
            let new_homes: BTreeMap<NodeId, Incarnation> =
                nodes.iter().filter_map(|node| Some((*node, rebuilt_on(node)?))).collect();
            let outcome = self.change(entry.group, entry.epoch, |group| {
                if drop.rebuilt
                    && group.in_sync().filter(|it| !nodes.contains(&it.node)).count() < WRITABLE_MIN
                {
                    return Err("it would be left with fewer than two copies");
                }
                for (node, life) in &mut group.homes {
                    *life = new_homes.get(node).copied().unwrap_or(*life);
                }
                let before = group.members.len();
                group.members.retain(|member| !nodes.contains(&member.node));
                if group.members.len() == before {
                    return Err("none of them is a member");
                }
                if group.in_sync().next().is_none() {
                    return Err("the last in-sync member is never dropped");
                }
                Ok(())
            });
            if matches!(outcome.1, Outcome::Changed(_)) {
                dropped.extend(nodes);
            }
            answer.groups.push(outcome);
        }
        if !drop.rebuilt {
            self.count_drops(&dropped);
        }
        answer
    }

    /// Two drops in ten minutes: the next join waits a minute, then twice as long each time (control design, 2.5).
    /// Drops shortly after one another are one event: not every group learns of it in the same command. One that goes on and
    /// on is not.
    fn count_drops(&mut self, nodes: &BTreeSet<NodeId>) {
        for node in nodes {
            let known = self.flaps.get(node).copied();
            let (began, wait) = match known {
                Some(flaps) if self.clock.since(flaps.began) < SAME_EVENT => (flaps.began, flaps.wait),
                Some(flaps) if self.clock.since(flaps.last) < FLAP_WINDOW.max(flaps.wait * 2) => {
                    (self.clock, (flaps.wait * 2).clamp(FLAP_WAIT_MIN, FLAP_WAIT_MAX))
                }
                _ => (self.clock, Duration::ZERO),
            };
            self.flaps.insert(*node, Flaps { last: self.clock, began, wait });
        }
    }

    fn add_joining(&mut self, add: &AddJoining) -> Answer {
        let mut answer = Answer::default();
        let mut load = Load::of(self);
        for joining in &add.groups {
            let node = NodeId(joining.node);
            let known = self.groups.get(&GroupId(joining.group));
            let device = known.and_then(|group| load.device_for(self, group, node));
            let outcome = self.change(joining.group, joining.epoch, |group| {
                let incarnation = device.ok_or("the host has no device that serves")?;
                if group.member(node).is_some() {
                    return Err("it is a member");
                }
                if group.joining().is_some() {
                    return Err("one member joins at a time");
                }
                if group.is_full() {
                    // A move: the group stays whole while the new member is filled, and then the old one leaves.
                    let leaves = NodeId(joining.replaces);
                    if group.member(leaves).is_none() {
                        return Err("the group is full");
                    }
                    group.homes.retain(|(home, _)| *home != leaves);
                    group.homes.push((node, incarnation));
                }
                group.members.push(Member { node, incarnation, role: Role::Joining });
                // It will discard what lies above its commit point, acknowledged or not: from now on its copy is
                // no longer one that holds every acknowledged write.
                group.last_writable.retain(|(writable, _)| *writable != node);
                let own = group.homes().position(|home| home == node);
                match own.or(absent_home(group).filter(|_| group.homes.len() >= group.replicas.count())) {
                    Some(index) => group.homes[index] = (node, incarnation),
                    None => group.homes.push((node, incarnation)),
                }
                group.homes.sort();
                Ok(())
            });
            if let (Outcome::Changed(_), Some(incarnation)) = (outcome.1, device) {
                load.add(incarnation);
            }
            answer.groups.push(outcome);
        }
        answer
    }

    fn admit(&mut self, admit: &Admit) -> Answer {
        let mut answer = Answer::default();
        for joining in &admit.groups {
            let node = NodeId(joining.node);
            let serving = self.lives_on(node);
            answer.groups.push(self.change(joining.group, joining.epoch, |group| {
                let member = group
                    .members
                    .iter_mut()
                    .find(|member| member.node == node && member.role == Role::Joining)
                    .ok_or("it is not joining")?;
                if !serving.contains(&member.incarnation) {
                    return Err("its device is not the one that was filled");
                }
                member.role = Role::InSync;
                if group.in_sync().count() > group.replicas.count() {
                    let leaves =
                        group.in_sync().find(|member| !group.homes().any(|home| home == member.node));
                    let leaves = leaves.ok_or("nobody leaves the group")?.node;
                    group.members.retain(|member| member.node != leaves);
                }
                Ok(())
            }));
        }
        answer
    }

    fn move_primary(&mut self, moved: &MovePrimary) -> Answer {
        let mut answer = Answer::default();
        for entry in &moved.groups {
            let node = NodeId(entry.node);
            answer.groups.push(self.change(entry.group, entry.epoch, |group| {
                if group.primary == node {
                    return Err("it is the primary");
                }
                if !group.in_sync().any(|member| member.node == node) {
                    return Err("the primary is one of the members in sync");
                }
                group.primary = node;
                Ok(())
            }));
        }
        answer
    }

    fn reinstate(&mut self, reinstate: &Reinstate) -> Answer {
        let mut answer = Answer::default();
        for entry in &reinstate.groups {
            let nodes: BTreeSet<NodeId> = entry.nodes.iter().copied().map(NodeId).collect();
            let serving: BTreeMap<NodeId, BTreeSet<Incarnation>> =
                nodes.iter().map(|node| (*node, self.lives_on(*node))).collect();
            answer.groups.push(self.change(entry.group, entry.epoch, |group| {
                if !group.frozen() {
                    return Err("the group takes writes; its members are filled by joining");
                }
                if serving.is_empty() || serving.values().any(BTreeSet::is_empty) {
                    return Err("a host has no device that serves");
                }
                let complete: Vec<Member> = group
                    .last_writable
                    .iter()
                    .filter(|(node, life)| serving.get(node).is_some_and(|lives| lives.contains(life)))
                    .map(|(node, life)| Member { node: *node, incarnation: *life, role: Role::InSync })
                    .collect();
                if complete.len() != nodes.len() {
                    return Err("only a member of the last writable epoch holds every acknowledged write");
                }
                group.members = complete;
                Ok(())
            }));
        }
        answer
    }

    fn close_device(&mut self, close: &CloseDevice) -> Answer {
        let Some(known) = device_id(&close.device).and_then(|id| self.devices.get(&id).map(|it| (id, it)))
        else {
            return refused("no such device");
        };
        let (id, node, incarnation) = (known.0, known.1.node, known.1.incarnation);
        if !matches!(known.1.state, DeviceState::Mounted { .. }) {
            return Answer::default();
        }
        let left = |member: &Member| member.node == node && member.incarnation == incarnation;
        let is_needed = |group: &Group| {
            let others = group.in_sync().filter(|member| !left(member)).count();
            group.in_sync().any(left) && others < WRITABLE_MIN
        };
        if self.groups.values().any(is_needed) {
            return refused(
                "a group would be left with fewer than two copies: wait until `nova fs health` shows all of them in sync, \
                 or drain the host first",
            );
        }
        self.devices.get_mut(&id).expect("it was just found").state = DeviceState::Absent;
        // No flap of the host: an operator asked for it, and another device there may take its replicas at once.
        self.leave(&BTreeSet::from([node]), left, &[]).0
    }

    fn pace_device(&mut self, pace: &PaceDevice) -> Answer {
        let clock = self.clock;
        let device = device_id(&pace.device).and_then(|id| self.devices.get_mut(&id));
        let Some(device) = device.filter(|device| matches!(device.state, DeviceState::Mounted { .. })) else {
            return refused("no such device serves");
        };
        device.slow = pace.slow.then(|| device.slow.unwrap_or(clock));
        Answer::default()
    }

    fn fail_device(&mut self, fail: &FailDevice) -> Answer {
        let Some(device) = device_id(&fail.device).and_then(|id| self.devices.get_mut(&id)) else {
            return refused("no such device");
        };
        device.state = DeviceState::Failed;
        let (node, incarnation) = (device.node, device.incarnation);
        // No flap of the host: the device never comes back, and another one there may take its replicas at once.
        let left = |member: &Member| member.node == node && member.incarnation == incarnation;
        self.leave(&BTreeSet::from([node]), left, &[]).0
    }

    fn forget_device(&mut self, forget: &ForgetDevice) -> Answer {
        let id = device_id(&forget.device);
        let Some((id, known)) = id.and_then(|id| Some((id, self.devices.get(&id)?))) else {
            return refused("no such device");
        };
        if matches!(known.state, DeviceState::Mounted { .. }) {
            return refused(
                "the device serves: only one that failed, or that its host was started without, is forgotten",
            );
        }
        let life = (known.node, known.incarnation);
        let may_return = known.state == DeviceState::Absent;
        let is_needed = |group: &Group| {
            let is_member = group.members.iter().any(|it| (it.node, it.incarnation) == life);
            is_member || may_return && group.frozen() && group.last_writable.contains(&life)
        };
        if self.groups.values().any(is_needed) {
            return refused(
                "groups may still need what is on the device: wait until `nova fs health` shows all of them in sync",
            );
        }
        self.remove_device(id);
        Answer::default()
    }

    /// The lives of the devices that serve on a host.
    fn lives_on(&self, node: NodeId) -> BTreeSet<Incarnation> {
        self.devices_of(node).map(|(_, device)| device.incarnation).collect()
    }

    fn restart(&mut self, restart: &Restart) -> Answer {
        let mut incarnated = Vec::with_capacity(restart.mounts.len());
        let mut named: BTreeMap<NodeId, BTreeSet<DeviceId>> = BTreeMap::new();
        for mount in &restart.mounts {
            let Some(id) = mount.device_id() else { return refused("a device id has 16 bytes") };
            if mount.mount_trail().is_none() {
                return refused("a trail has at most eight mounts");
            }
            named.entry(NodeId(mount.node)).or_default().insert(id);
        }
        let (mut restarted, mut undisturbed) = (BTreeSet::new(), BTreeSet::new());
        for mount in &restart.mounts {
            let id = mount.device_id().expect("checked above");
            let (answer, changed) = self.mount(id, mount);
            if changed {
                restarted.insert(NodeId(mount.node));
            } else if let Some(answer) = answer {
                undisturbed.insert((answer.node, answer.incarnation));
            }
            incarnated.extend(answer);
        }
        for node in &restarted {
            let anew = !undisturbed.iter().any(|(running, _)| running == node);
            self.settle_devices(*node, &named[node], anew);
        }
        let confirm: Vec<Confirmed> = restart
            .confirm
            .iter()
            .map(|entry| Confirmed {
                group: GroupId(entry.group),
                epoch: Epoch(entry.epoch),
                nodes: entry.nodes.iter().copied().map(NodeId).collect(),
            })
            .collect();
        // A host that opened another device while it runs serves on with those that it had.
        let left = |member: &Member| {
            restarted.contains(&member.node) && !undisturbed.contains(&(member.node, member.incarnation))
        };
        let (mut answer, dropped) = self.leave(&restarted, left, &confirm);
        self.count_drops(&dropped);
        answer.incarnated = incarnated;
        answer
    }

    /// Registers one mount; tells the life of the device and whether it began another one or its host did.
    fn mount(&mut self, id: DeviceId, mount: &Mount) -> (Option<Incarnated>, bool) {
        let (node, boot) = (NodeId(mount.node), BootId(mount.boot));
        let claimed = Incarnation(mount.incarnation);
        let told =
            |incarnation| Some(Incarnated { node, device: id, incarnation, wipe: claimed != incarnation });
        let state = DeviceState::Mounted { boot };
        let newest = mount.mount_trail().expect("checked before").newest();
        let incarnation = match self.devices.get(&id) {
            Some(known) if known.node == node && known.is_newest_of(mount) && known.state == state => {
                return (told(known.incarnation), false);
            }
            // Never again, whatever a later mount says: it may hold the last copy of something, and a new life would
            // begin empty. Formatted anew it is another device.
            Some(known) if known.state == DeviceState::Failed => return (None, false),
            // Its host was told to close it, and says what it said before.
            Some(known) if known.state == DeviceState::Absent && known.is_closed_in(mount) => {
                return (None, false);
            }
            Some(known) if known.goes_on_in(mount) => known.incarnation,
            _ => {
                self.last_incarnation += 1;
                Incarnation(self.last_incarnation)
            }
        };
        if let Some(known) = self.devices.get(&id)
            && known.node != node
            && matches!(known.state, DeviceState::Mounted { .. })
        {
            self.astray.insert((known.node, known.incarnation));
        }
        let device = Device {
            node,
            mount_counter: mount.mount_counter,
            mount: newest,
            incarnation,
            bytes_total: mount.bytes_total,
            state,
            slow: None,
        };
        self.put_device(id, device);
        (told(incarnation), true)
    }

    /// A host told all devices that it has mounted: any other one that it had is absent. `anew`: at a new start.
    fn settle_devices(&mut self, node: NodeId, mounted: &BTreeSet<DeviceId>, anew: bool) {
        let others: Vec<DeviceId> =
            self.devices_of(node).map(|(id, _)| id).filter(|id| !mounted.contains(id)).collect();
        for id in others {
            self.devices.get_mut(&id).expect("it was just listed").state = DeviceState::Absent;
        }
        if !anew {
            return;
        }
        let over: Vec<_> = self.astray.iter().filter(|(host, _)| *host == node).copied().collect();
        for life in over {
            self.astray.remove(&life);
        }
    }

    /// `left` members go from every group of `nodes`, as far as another in-sync member stays. Where none would, the
    /// confirmed ones stay, or else all whose device still has its life, or else all: the group waits for them. Answers
    /// whose members went, too.
    fn leave(
        &mut self,
        nodes: &BTreeSet<NodeId>,
        left: impl Fn(&Member) -> bool,
        confirm: &[Confirmed],
    ) -> (Answer, BTreeSet<NodeId>) {
        let touched: Vec<(GroupId, Group)> = self
            .iter()
            .filter(|(_, group)| group.members.iter().any(&left))
            .map(|(id, group)| (id, group.clone()))
            .collect();
        let mut answer = Answer::default();
        let mut dropped = BTreeSet::new();
        for (id, mut group) in touched {
            let alive = |member: &Member| self.serves(member.node, member.incarnation);
            let confirmed = confirm.iter().find(|entry| {
                let in_sync = |node: &NodeId| {
                    group
                        .in_sync()
                        .any(|member| member.node == *node && nodes.contains(node) && alive(member))
                };
                entry.group == id
                    && entry.epoch == group.epoch
                    && !entry.nodes.is_empty()
                    && entry.nodes.iter().all(in_sync)
            });
            let before = group.members.clone();
            let in_sync: Vec<Member> = group.in_sync().copied().collect();
            let joining: Vec<Member> =
                group.joining().filter(|member| !left(member)).copied().into_iter().collect();
            let staying: Vec<Member> = in_sync.iter().filter(|member| !left(member)).copied().collect();
            let returned: Vec<Member> = in_sync.iter().filter(|member| alive(member)).copied().collect();
            group.members = match confirmed {
                Some(entry) => {
                    in_sync.into_iter().filter(|member| entry.nodes.contains(&member.node)).collect()
                }
                None if !staying.is_empty() => staying,
                None if !returned.is_empty() => returned,
                None => in_sync,
            };
            group.members.extend(joining);
            let gone = |member: &&Member| !group.members.iter().any(|kept| kept.node == member.node);
            dropped.extend(before.iter().filter(gone).map(|member| member.node));
            let epoch = self.settle(id, group);
            answer.groups.push((id, Outcome::Changed(epoch)));
        }
        (answer, dropped)
    }
}

fn device_id(bytes: &[u8]) -> Option<DeviceId> {
    Some(DeviceId(u128::from_be_bytes(bytes.try_into().ok()?)))
}

/// The home that a new one takes the place of: it has no member, and rather lacks writes than not.
fn absent_home(group: &Group) -> Option<usize> {
    let is_complete = |home: &(NodeId, Incarnation)| group.last_writable.contains(home);
    let absent = group.homes.iter().enumerate().filter(|(_, (node, _))| group.member(*node).is_none());
    absent.min_by_key(|(_, home)| is_complete(home)).map(|(index, _)| index)
}

/// A [`crate::ConfirmGroup`], taken apart.
struct Confirmed {
    group: GroupId,
    epoch: Epoch,
    nodes: BTreeSet<NodeId>,
}
