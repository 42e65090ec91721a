//! How an arena is divided into classes.

/// Sizes of the classes, smallest first, in bytes.
pub const CLASS_BYTES: [usize; CLASS_COUNT] = [4 << 10, 64 << 10, 256 << 10, 1 << 20];

/// How many classes there are.
pub const CLASS_COUNT: usize = 4;

/// The largest buffer a pool lends, in bytes.
pub const TAKE_BYTES_MAX: usize = CLASS_BYTES[CLASS_COUNT - 1];

/// An arena is a whole number of these: one huge page, and the least in which each class has a buffer.
pub const ARENA_STEP_BYTES: usize = 2 << 20;

const _: () = assert!(ARENA_STEP_BYTES.is_multiple_of(TAKE_BYTES_MAX));

/// How many buffers of each class an arena of `arena_bytes` holds.
///
/// Shares of the bytes: 13/32 for 1 MiB (segments, wire payload), 1/8 for 256 KiB (credits), 11/32 for 64 KiB
/// (units) and what remains, about 1/8, for 4 KiB (pages, log records). Every byte of the arena belongs to a class.
///
/// # Panics
/// When `arena_bytes` is zero or not a multiple of [`ARENA_STEP_BYTES`].
#[must_use]
pub const fn class_counts(arena_bytes: usize) -> [usize; CLASS_COUNT] {
    assert!(arena_bytes > 0 && arena_bytes.is_multiple_of(ARENA_STEP_BYTES), "arena is not whole steps");
    let mut large = arena_bytes / 32 * 13 / CLASS_BYTES[3];
    if large == 0 {
        large = 1;
    }
    let middle = arena_bytes / 8 / CLASS_BYTES[2];
    let units = arena_bytes / 32 * 11 / CLASS_BYTES[1];
    let rest = arena_bytes - large * CLASS_BYTES[3] - middle * CLASS_BYTES[2] - units * CLASS_BYTES[1];
    [rest / CLASS_BYTES[0], units, middle, large]
}

/// The smallest class that holds `bytes`, if there is one.
pub(crate) fn class_for(bytes: usize) -> Option<usize> {
    CLASS_BYTES.iter().position(|&class_bytes| bytes <= class_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixty_four_mib_gives_enough_segments_and_credits() {
        let [pages, units, credits, segments] = class_counts(64 << 20);
        assert_eq!((segments, credits, units, pages), (26, 32, 352, 2048));
    }

    #[test]
    fn every_arena_is_used_to_its_last_byte_and_has_every_class() {
        for steps in 1..=600 {
            let counts = class_counts(steps * ARENA_STEP_BYTES);
            let bytes: usize = counts.iter().zip(CLASS_BYTES).map(|(count, bytes)| count * bytes).sum();
            assert_eq!(bytes, steps * ARENA_STEP_BYTES);
            assert!(counts.iter().all(|&count| count > 0), "{counts:?} of {steps} steps");
        }
    }

    #[test]
    fn a_request_goes_to_the_smallest_class_that_holds_it() {
        assert_eq!([0, 1, 4096].map(class_for), [Some(0); 3]);
        assert_eq!([4097, 65536].map(class_for), [Some(1); 2]);
        assert_eq!([65537, 262_144, 262_145, 1 << 20].map(class_for), [Some(2), Some(2), Some(3), Some(3)]);
        assert_eq!(class_for((1 << 20) + 1), None);
    }
}
