//! Worlds as 64-bit fingerprints. With n worlds the odds that any two of them share one, so that one of them is left out,
//! are about n² / 2⁶⁵: one in 280,000 for eleven million, one in 400 for 300 million.

use std::hash::Hasher;

use crate::controllers::{Order, orders};
use crate::host_set::{HOSTS, HostSet};
use crate::world::{Disk, Host, NONE, World};

const ODD: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93];

/// A hash of words: each is folded in by a 128-bit product.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mix(u64);

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    let high = u64::try_from(product >> 64).expect("64 bits are left");
    let low = a.wrapping_mul(b);
    low ^ high
}

impl Mix {
    fn word(&mut self, word: u64) {
        self.0 = fold(self.0.rotate_left(23) ^ word ^ ODD[0], ODD[1]).wrapping_add(word.rotate_left(41));
    }
}

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.word(word);
    }

    fn finish(&self) -> u64 {
        fold(self.0 ^ ODD[1], ODD[0] | 1)
    }
}

/// A hash of what is a fingerprint already.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Same(u64);

impl Hasher for Same {
    fn write(&mut self, _: &[u8]) {
        unreachable!("only fingerprints are hashed");
    }

    fn write_u64(&mut self, fingerprint: u64) {
        self.0 = fingerprint;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The words of a world, in full.
type Words = [u64; 2 * HOSTS + 1];

/// Bits one after the other.
#[derive(Clone, Copy, Default)]
struct Bits(u64);

impl Bits {
    fn put(&mut self, value: u8, bits: u32) {
        debug_assert!(u32::from(value) < 1 << bits, "{value} in {bits} bits");
        self.0 = self.0 << bits | u64::from(value);
    }

    fn flag(&mut self, value: bool) {
        self.put(value.into(), 1);
    }

    fn disk(&mut self, disk: &Disk) {
        self.flag(disk.past);
        self.flag(disk.traced);
        self.put(disk.commit, 3);
        self.0 = self.0 << 16 | u64::from(disk.log.0);
    }
}

/// Where every host goes.
fn moved(order: &Order, set: HostSet) -> u8 {
    set.iter().fold(0, |moved, host| moved | 1 << order[host])
}

fn renamed(order: &Order, host: u8) -> u8 {
    order.get(usize::from(host)).copied().unwrap_or(NONE)
}

/// What of a host has no name of another host in it.
fn nameless(world: &World, host: usize) -> u64 {
    let it = &world.hosts[host];
    let control = &world.control;
    let mut bits = Bits::default();
    for flag in [it.up, it.known, it.amnesic, it.ready, it.counts, it.node_lease] {
        bits.flag(flag);
    }
    bits.disk(&it.disk);
    bits.put(it.settled, 3);
    bits.put(it.view.epoch, 4);
    for set in [control.in_sync, control.joining, control.over, control.writable] {
        bits.flag(set.contains(host));
    }
    bits.flag(usize::from(control.primary) == host);
    bits.0
}

/// What names other hosts, with their new names.
fn named(it: &Host, order: &Order) -> u64 {
    let mut bits = Bits::default();
    bits.disk(&it.image);
    bits.put(renamed(order, it.view.primary), 4);
    for set in [it.view.in_sync, it.view.joining, it.leases, it.promises] {
        bits.put(moved(order, set), 4);
    }
    let mut acked = [NONE; HOSTS];
    for (host, entries) in it.acked.iter().enumerate() {
        acked[usize::from(order[host])] = *entries;
    }
    acked.iter().for_each(|entries| bits.put(*entries, 4));
    bits.0
}

/// What tells hosts apart without regard to names: equal for a host and its twin in a world with other names.
fn looks(world: &World, host: usize) -> u64 {
    let it = &world.hosts[host];
    let mut bits = Bits::default();
    bits.flag(usize::from(it.view.primary) == host);
    bits.flag(it.view.in_sync.contains(host));
    bits.flag(it.view.joining.contains(host));
    bits.put(it.view.in_sync.len(), 3);
    bits.put(it.leases.len(), 3);
    let count = |is: &dyn Fn(&Host) -> bool| world.hosts_that(is).len();
    bits.put(count(&|other| other.leases.contains(host)), 3);
    bits.put(count(&|other| other.view.in_sync.contains(host)), 3);
    let acked = world.hosts.iter().map(|other| (other.acked[host] + 1) & 0xf);
    bits.0 = bits.0 << 8 | acked.map(u64::from).sum::<u64>();
    let own = it.acked.iter().map(|entries| (entries + 1) & 0xf);
    bits.0 = bits.0 << 8 | own.map(u64::from).sum::<u64>();
    bits.disk(&it.image);
    bits.0
}

fn words(world: &World, order: &Order) -> Words {
    let mut words = [0; 2 * HOSTS + 1];
    for host in 0..HOSTS {
        let place = 2 * usize::from(order[host]);
        words[place] = nameless(world, host);
        words[place + 1] = named(&world.hosts[host], order);
    }
    let mut bits = Bits(world.acknowledged.0.into());
    bits.put(world.control.epoch, 4);
    bits.put(world.written, 4);
    bits.put(world.crashes, 4);
    bits.put(world.amnesias, 4);
    bits.flag(world.reported);
    bits.put(world.violation.map_or(0, |violation| violation as u8 + 1), 3);
    words[2 * HOSTS] = bits.0;
    words
}

fn hash(words: &Words) -> u64 {
    let mut mix = Mix::default();
    words.iter().for_each(|word| mix.word(*word));
    mix.finish()
}

/// How worlds are told apart.
#[derive(Debug)]
pub(crate) struct Fingerprints {
    alike: bool,
    orders: Vec<Order>,
}

impl Fingerprints {
    /// `alike`: worlds that differ in the names of hosts only have the same fingerprint.
    pub(crate) fn new(alike: bool) -> Self {
        Self { alike, orders: orders() }
    }

    pub(crate) fn of(&self, world: &World) -> u64 {
        if self.alike { hash(&self.least(world)) } else { hash(&words(world, &[0, 1, 2, 3])) }
    }

    /// Hosts in the order of what tells them apart; the least of all orders among those that look the same.
    fn least(&self, world: &World) -> Words {
        let mut keys: [(u64, u64, usize); HOSTS] = [(0, 0, 0); HOSTS];
        for (host, key) in keys.iter_mut().enumerate() {
            *key = (nameless(world, host), looks(world, host), host);
        }
        keys.sort_unstable();
        let same = |a: usize, b: usize| (keys[a].0, keys[a].1) == (keys[b].0, keys[b].1);
        if (1..HOSTS).all(|place| !same(place - 1, place)) {
            return words(world, &order_of(&keys, [0, 1, 2, 3]));
        }
        let fits = |order: &&Order| (0..HOSTS).all(|place| same(place, order[place].into()));
        let all = self.orders.iter().filter(fits);
        all.map(|order| words(world, &order_of(&keys, *order))).min().expect("one order changes nothing")
    }
}

/// The host at place `i` of `keys` goes to place `shuffle[i]`.
fn order_of(keys: &[(u64, u64, usize); HOSTS], shuffle: [u8; HOSTS]) -> Order {
    let mut order = [0; HOSTS];
    for (place, (.., host)) in keys.iter().enumerate() {
        order[*host] = shuffle[place];
    }
    order
}
