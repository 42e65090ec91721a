//! State and command make the next state and an answer.

use nova_units::{BootId, NodeId, PeerAddr, Timestamp};

use crate::command::{Answer, Command, Drain, Observe, Op, Register};
use crate::model::{Event, Fleet, NAME_BYTES_MAX, NODES_MAX, Node, NodeState};

/// Roles of one host.
const ROLES_MAX: usize = 16;

impl Fleet {
    /// Applies a command.
    pub fn apply(&mut self, command: &Command) -> Answer {
        self.clock = self.clock.max(Timestamp(command.at_ms));
        match &command.op {
            Some(Op::Register(register)) => self.register(register),
            Some(Op::Observe(observe)) => self.observe(*observe),
            Some(Op::Drain(drain)) => self.drain(*drain),
            None => Answer::Refused("this controller does not know the command; upgrade it"),
        }
    }

    fn register(&mut self, register: &Register) -> Answer {
        let named = |text: &str| text.len() <= NAME_BYTES_MAX && !text.contains(char::is_control);
        if register.name.is_empty() || !named(&register.name) || !named(&register.zone) {
            return Answer::Refused("a host has a name of 1 to 255 bytes, and a zone of at most that");
        }
        if register.roles.len() > ROLES_MAX || !register.roles.iter().all(|role| named(role)) {
            return Answer::Refused("a host has at most 16 roles of at most 255 bytes");
        }
        let Ok(addr) = register.addr.parse().map(PeerAddr) else {
            return Answer::Refused("data_addr is ip:port");
        };
        let boot = BootId(register.boot);
        let mut roles = register.roles.clone();
        roles.sort();
        roles.dedup();
        let known = self.by_name(&register.name);
        if known.is_none() && self.nodes.len() >= NODES_MAX {
            return Answer::Refused("a region has at most 10,000 hosts");
        }
        let id = known.unwrap_or(NodeId(self.last_node + 1));
        let old = self.nodes.get(&id);
        let restarted = old.is_none_or(|old| old.boot != boot || old.state == NodeState::Terminated);
        let (state, changed) = match old {
            Some(old) if !restarted => (old.state, old.changed),
            _ => (NodeState::Initializing, self.clock),
        };
        let registered = old.map_or(self.clock, |old| old.registered);
        // A restart in the middle of a drain changes nothing about it; a host that was taken out begins anew.
        let kept = old.filter(|old| old.state != NodeState::Terminated);
        let node = Node {
            name: register.name.clone(),
            roles,
            zone: register.zone.clone(),
            addr,
            boot,
            state,
            registered,
            changed,
            draining: kept.and_then(|old| old.draining),
        };
        self.last_node = self.last_node.max(id.0);
        self.names.insert(register.name.clone(), id);
        self.nodes.insert(id, node);
        Answer::Registered(id)
    }

    fn drain(&mut self, drain: Drain) -> Answer {
        let clock = self.clock;
        let Some(node) = self.nodes.get_mut(&NodeId(drain.node)) else {
            return Answer::Refused("no such host");
        };
        if node.state == NodeState::Terminated {
            return Answer::Refused("the host was taken out of the cluster");
        }
        node.draining = drain.on.then(|| node.draining.unwrap_or(clock));
        Answer::Changed(node.state)
    }

    fn observe(&mut self, observe: Observe) -> Answer {
        let event = observe.event();
        if matches!(event, Event::Unspecified | Event::Registered) {
            return Answer::Refused("a host registers by itself");
        }
        let clock = self.clock;
        let Some(node) = self.nodes.get_mut(&NodeId(observe.node)) else {
            return Answer::Refused("no such host");
        };
        if node.boot != BootId(observe.boot) {
            return Answer::Stale;
        }
        match node.state.next(event) {
            Ok(state) => {
                node.state = state;
                node.changed = clock;
                Answer::Changed(state)
            }
            Err(_) => Answer::Stale,
        }
    }
}
