//! Who listens where, which ways are cut, and every open connection.

use core::{
    cell::{Cell, RefCell},
    net::{IpAddr, SocketAddr},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::{Rc, Weak},
};

use super::{MemLane, NetFaults, lane::Connection, shard::HostId};
use crate::sync::Notify;

/// Connections that wait to be accepted on one port; the next is refused.
pub(super) const BACKLOG_MAX: usize = 128;

#[derive(Debug, Default)]
pub(super) struct Network {
    faults: Cell<NetFaults>,
    cuts: RefCell<BTreeSet<(IpAddr, IpAddr)>>,
    ports: RefCell<BTreeMap<SocketAddr, Rc<Port>>>,
    connections: RefCell<Vec<Weak<Connection>>>,
}

/// A port somebody listens on.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) host: HostId,
    pub(super) backlog: RefCell<VecDeque<(MemLane, SocketAddr)>>,
    pub(super) arrived: Notify,
}

impl Network {
    pub(super) fn faults(&self) -> NetFaults {
        self.faults.get()
    }

    pub(super) fn set_faults(&self, faults: NetFaults) {
        self.faults.set(faults);
    }

    pub(super) fn is_cut(&self, from: IpAddr, to: IpAddr) -> bool {
        self.cuts.borrow().contains(&(from, to))
    }

    pub(super) fn cut(&self, from: IpAddr, to: IpAddr) {
        self.cuts.borrow_mut().insert((from, to));
    }

    /// Heals one way, or all, and wakes who waits for bytes.
    pub(super) fn heal(&self, way: Option<(IpAddr, IpAddr)>) {
        match way {
            Some(way) => {
                self.cuts.borrow_mut().remove(&way);
            }
            None => self.cuts.borrow_mut().clear(),
        }
        for connection in self.live() {
            connection.wake_readers();
        }
    }

    pub(super) fn bind(&self, at: SocketAddr, host: HostId) -> Rc<Port> {
        let mut ports = self.ports.borrow_mut();
        assert!(!ports.contains_key(&at), "{at} is taken");
        let port = Rc::new(Port { host, backlog: RefCell::default(), arrived: Notify::new() });
        ports.insert(at, Rc::clone(&port));
        port
    }

    /// Frees the port, if it still is this one.
    pub(super) fn unbind(&self, at: SocketAddr, port: &Rc<Port>) {
        let mut ports = self.ports.borrow_mut();
        if ports.get(&at).is_some_and(|bound| Rc::ptr_eq(bound, port)) {
            ports.remove(&at);
        }
    }

    pub(super) fn port(&self, at: SocketAddr) -> Option<Rc<Port>> {
        self.ports.borrow().get(&at).cloned()
    }

    pub(super) fn add(&self, connection: &Rc<Connection>) {
        let mut connections = self.connections.borrow_mut();
        // Swept when it would grow, so that its size follows what is open.
        if connections.len() == connections.capacity() {
            connections.retain(|connection| connection.strong_count() > 0);
        }
        connections.push(Rc::downgrade(connection));
    }

    pub(super) fn reset_between(&self, one: IpAddr, other: IpAddr) {
        for connection in self.live() {
            let [left, right] = connection.addresses();
            if (left, right) == (one, other) || (left, right) == (other, one) {
                connection.reset();
            }
        }
    }

    /// Closes the ports of a dead host and, unless it went silent, breaks its connections.
    pub(super) fn remove_host(&self, host: HostId, silent: bool) {
        let closed: Vec<_> = {
            let mut ports = self.ports.borrow_mut();
            let at: Vec<_> = ports.iter().filter(|(_, port)| port.host == host).map(|(&at, _)| at).collect();
            at.iter().filter_map(|at| ports.remove(at)).collect()
        };
        for connection in self.live() {
            if connection.hosts().contains(&host) {
                if silent {
                    connection.silence();
                } else {
                    connection.reset();
                }
            }
        }
        drop(closed);
    }

    /// Drops everything that refers back to the world.
    pub(super) fn clear(&self) {
        let ports = self.ports.take();
        for port in ports.values() {
            drop(port.backlog.take());
        }
    }

    fn live(&self) -> Vec<Rc<Connection>> {
        self.connections.borrow().iter().filter_map(Weak::upgrade).collect()
    }
}
