/// Mounts of a device that its trail keeps at most.
pub const MOUNT_TRAIL_MAX: usize = 8;

/// A mount of a device, as a random number that no other mount has.
///
/// 0 stands for every mount before devices kept a trail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MountNonce(pub u64);

/// The mounts of a device since the last one that the controllers confirmed, that one included, oldest first
/// (docs/adr/0028).
///
/// The controllers know the newest mount that they took. A device whose trail does not name it is an old image of what
/// it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MountTrail {
    count: u8,
    nonces: [MountNonce; MOUNT_TRAIL_MAX],
}

impl Default for MountTrail {
    /// Of a device that was never mounted, or only before there were trails.
    fn default() -> Self {
        Self { count: 1, nonces: [MountNonce(0); MOUNT_TRAIL_MAX] }
    }
}

impl MountTrail {
    /// Of these mounts; `None` unless they are 1 to [`MOUNT_TRAIL_MAX`].
    #[must_use]
    pub fn new(mounts: &[MountNonce]) -> Option<Self> {
        let mut trail = Self { count: u8::try_from(mounts.len()).ok()?, ..Self::default() };
        trail.nonces.get_mut(..mounts.len())?.copy_from_slice(mounts);
        (trail.count > 0).then_some(trail)
    }

    /// The mounts, oldest first.
    #[must_use]
    pub fn as_slice(&self) -> &[MountNonce] {
        &self.nonces[..usize::from(self.count)]
    }

    /// The mount of now.
    #[must_use]
    pub fn newest(&self) -> MountNonce {
        self.nonces[usize::from(self.count) - 1]
    }

    /// Whether `mount` is among them.
    #[must_use]
    pub fn names(&self, mount: MountNonce) -> bool {
        self.as_slice().contains(&mount)
    }

    /// The device is mounted once more. When the trail is full the newest stands for this mount too: a host that starts
    /// again and again while no controller answers must not lose a good device.
    pub fn begin(&mut self, mount: MountNonce) {
        if let Some(slot) = self.nonces.get_mut(usize::from(self.count)) {
            *slot = mount;
            self.count += 1;
        }
    }

    /// The controllers confirmed the mount of now: those before it will not be asked for again.
    pub fn settle(&mut self) {
        let newest = self.newest();
        *self = Self { count: 1, ..Self::default() };
        self.nonces[0] = newest;
    }

    /// Whether only the mount of now is left.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.count == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_trail_still_names_the_confirmed_mount() {
        let mut trail = MountTrail::default();
        trail.begin(MountNonce(100));
        assert!(!trail.is_settled());
        trail.settle();
        assert_eq!(trail.as_slice(), [MountNonce(100)]);
        for mount in 101..120 {
            trail.begin(MountNonce(mount));
            assert!(trail.names(MountNonce(100)), "{mount}");
        }
        assert_eq!(trail.as_slice().len(), MOUNT_TRAIL_MAX);
        assert_eq!(trail.newest(), MountNonce(107), "it stands for all that came after it");
        trail.settle();
        assert_eq!(trail, MountTrail::new(&[MountNonce(107)]).unwrap(), "nothing is left behind");
    }

    #[test]
    fn a_trail_has_one_to_eight_mounts() {
        assert_eq!(MountTrail::new(&[]), None);
        assert_eq!(MountTrail::new(&[MountNonce(1); 9]), None);
        assert_eq!(MountTrail::new(&[MountNonce(0)]), Some(MountTrail::default()));
    }
}
