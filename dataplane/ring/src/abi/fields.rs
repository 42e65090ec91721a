//! Packing fields into slots, and declaring the slots of one direction.

use nova_units::{BlockId, BootId, DeviceId, Epoch, Generation, GroupId, Incarnation, MountNonce, NodeId};

use super::{BadSlot, SLOT_BYTES, Slot};

/// Bytes in front of the fields.
const HEADER: usize = 8;

pub(super) struct Put {
    slot: [u8; SLOT_BYTES],
    at: usize,
}

impl Put {
    pub(super) fn new(kind: u16) -> Self {
        let mut slot = [0; SLOT_BYTES];
        slot[..2].copy_from_slice(&kind.to_le_bytes());
        Self { slot, at: HEADER }
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.slot[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    pub(super) fn done(self) -> Slot {
        Slot(self.slot)
    }
}

pub(super) struct Take<'s> {
    slot: &'s [u8; SLOT_BYTES],
    at: usize,
}

impl<'s> Take<'s> {
    pub(super) fn new(slot: &'s Slot) -> (u16, Self) {
        (u16::from_le_bytes([slot.0[0], slot.0[1]]), Self { slot: &slot.0, at: HEADER })
    }

    pub(super) fn array<const N: usize>(&mut self) -> [u8; N] {
        let bytes = *self.slot[self.at..]
            .first_chunk()
            .expect("declared fields fit a slot: the golden test encodes all");
        self.at += N;
        bytes
    }

    pub(super) fn done(self, kind: u16) -> Result<(), BadSlot> {
        let zero = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0);
        if zero(&self.slot[2..HEADER]) && zero(&self.slot[self.at..]) {
            Ok(())
        } else {
            Err(BadSlot::NotZero(kind))
        }
    }
}

/// A field of a slot.
pub(super) trait Field: Sized {
    fn put(&self, out: &mut Put);
    fn take(from: &mut Take<'_>, name: &'static str) -> Result<Self, BadSlot>;
}

macro_rules! number_fields {
    ($($number:ty),*) => {$(
        impl Field for $number {
            fn put(&self, out: &mut Put) {
                out.bytes(&self.to_le_bytes());
            }
            fn take(from: &mut Take<'_>, _: &'static str) -> Result<Self, BadSlot> {
                Ok(Self::from_le_bytes(from.array()))
            }
        }
    )*};
}
number_fields!(u8, u16, u32, u64, u128, i32);

macro_rules! id_fields {
    ($($id:ident),*) => {$(
        impl Field for $id {
            fn put(&self, out: &mut Put) {
                self.0.put(out);
            }
            fn take(from: &mut Take<'_>, name: &'static str) -> Result<Self, BadSlot> {
                Field::take(from, name).map(Self)
            }
        }
    )*};
}
id_fields!(BlockId, BootId, DeviceId, Epoch, Generation, GroupId, Incarnation, MountNonce, NodeId);

impl<const N: usize> Field for [u8; N] {
    fn put(&self, out: &mut Put) {
        out.bytes(self);
    }
    fn take(from: &mut Take<'_>, _: &'static str) -> Result<Self, BadSlot> {
        Ok(from.array())
    }
}

impl Field for bool {
    fn put(&self, out: &mut Put) {
        u8::from(*self).put(out);
    }
    fn take(from: &mut Take<'_>, name: &'static str) -> Result<Self, BadSlot> {
        match u8::take(from, name)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(BadSlot::Range(name)),
        }
    }
}

/// Declares the slots of one direction: kind number, name, fields in order.
macro_rules! slots {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$vdoc:meta])* $kind:literal => $variant:ident { $($(#[$fdoc:meta])* $field:ident: $type:ty,)* })*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$vdoc])* $variant { $($(#[$fdoc])* $field: $type,)* },)* }

        impl $name {
            /// Its slot.
            #[must_use]
            pub fn encode(&self) -> $crate::abi::Slot {
                match self {
                    $(Self::$variant { $($field,)* } => {
                        #[allow(unused_mut, reason = "a slot without fields")]
                        let mut out = $crate::abi::fields::Put::new($kind);
                        $($crate::abi::fields::Field::put($field, &mut out);)*
                        out.done()
                    })*
                }
            }

            /// Reads a slot and checks every field's range.
            ///
            /// # Errors
            /// [`BadSlot`]($crate::abi::BadSlot): detach the peer.
            pub fn decode(slot: &$crate::abi::Slot) -> Result<Self, $crate::abi::BadSlot> {
                #[allow(unused_mut, reason = "a slot without fields")]
                let (kind, mut from) = $crate::abi::fields::Take::new(slot);
                let found = match kind {
                    $($kind => Self::$variant {
                        $($field: $crate::abi::fields::Field::take(&mut from, stringify!($field))?,)*
                    },)*
                    other => return Err($crate::abi::BadSlot::Kind(other)),
                };
                from.done(kind)?;
                found.check()?;
                Ok(found)
            }
        }
    };
}
pub(super) use slots;
