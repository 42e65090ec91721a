//! How hosts of files meet: everything that dials, listens or makes a [`Link`] stands here.

use core::cell::Cell;
use core::net::SocketAddr;
use std::collections::BTreeMap;
use std::rc::Rc;

use nova_device::uring::TcpListener;
use nova_device::{Clock as _, Listener as _, Shard as _};
use nova_shard::RealShard;
use nova_units::{BootId, NodeId, PeerAddr, TaskClass};
use novabulk_link::{Link, LinkOptions, LocalIdentity};

use crate::end::{End, Remote};
use crate::host::{Host, Service};

/// Connections for bulk that a copy may have.
pub const STREAMS_MAX: u8 = 8;

/// Who answers at an address: a copy goes to an address, not to a host of a region.
const SERVER: NodeId = NodeId(u64::from_be_bytes(*b"novabulk"));
/// What a connection may hold in bodies of requests: 5 MiB, and the least for hops that files do not make.
const GRANTS: [u32; 3] = [20, 5, 5];
/// What all connections together may hold.
const RECEIVE_BYTES: u64 = 64 << 20;
/// A listener without resources is tried again after this.
const ACCEPT_PAUSE: core::time::Duration = core::time::Duration::from_millis(100);

/// How connections are made. They are not encrypted yet, so both ends are on one machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Door {}

impl Door {
    /// The host of files at `address`; connections are made when they are needed.
    #[must_use]
    pub fn dial(&self, shard: &RealShard, address: SocketAddr, streams: u8) -> End {
        let streams = usize::from(streams.clamp(1, STREAMS_MAX));
        let options = LinkOptions {
            connections_max: streams + 1,
            bulk_connections: streams,
            grants: GRANTS,
            receive_bytes: Some(RECEIVE_BYTES),
            ..LinkOptions::default()
        };
        // A number of its own for every copy: a host drops connections of an earlier life of the same caller.
        let local = LocalIdentity { node: NodeId(shard.random()), boot: BootId(shard.random()) };
        let link = Link::new(shard.clone(), local, options);
        link.set_peers(BTreeMap::from([(SERVER, PeerAddr(address))]));
        End::There(Remote {
            link,
            node: SERVER,
            address,
            shard: shard.clone(),
            heard_at: Rc::new(Cell::new(None)),
        })
    }

    fn link(shard: &RealShard) -> Link<RealShard> {
        let options =
            LinkOptions { grants: GRANTS, receive_bytes: Some(RECEIVE_BYTES), ..LinkOptions::default() };
        let local = LocalIdentity { node: SERVER, boot: BootId(shard.random()) };
        Link::new(shard.clone(), local, options)
    }
}

/// Lets others copy from and to `host`, for as long as the shard lives.
pub fn serve(_door: Door, shard: &RealShard, listener: TcpListener, host: &Rc<Host>) {
    let link = Door::link(shard);
    let service = Rc::new(Service(Rc::clone(host)));
    let on = shard.clone();
    shard.spawn(TaskClass::Control, async move {
        loop {
            match listener.accept().await {
                Ok((lane, _)) => link.accept(lane, Rc::clone(&service)),
                Err(_) => on.clock().sleep_until(on.clock().now() + ACCEPT_PAUSE).await,
            }
        }
    });
}
