//! Sets of hosts, small enough to be copied with every state.

/// Hosts: members, and those that are left over.
pub(crate) const HOSTS: usize = 4;

/// Some of the hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct HostSet(pub(crate) u8);

impl HostSet {
    pub(crate) fn of(host: usize) -> Self {
        Self(1 << host)
    }

    pub(crate) fn contains(self, host: usize) -> bool {
        self.0 >> host & 1 == 1
    }

    pub(crate) fn holds(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    pub(crate) fn insert(&mut self, host: usize) {
        self.0 |= 1 << host;
    }

    pub(crate) fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    pub(crate) fn and(self, others: Self) -> Self {
        Self(self.0 & others.0)
    }

    pub(crate) fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn len(self) -> u8 {
        u8::try_from(self.0.count_ones()).expect("at most four")
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = usize> {
        (0..HOSTS).filter(move |host| self.contains(*host))
    }
}

impl FromIterator<usize> for HostSet {
    fn from_iter<T: IntoIterator<Item = usize>>(hosts: T) -> Self {
        let mut set = Self::default();
        hosts.into_iter().for_each(|host| set.insert(host));
        set
    }
}
