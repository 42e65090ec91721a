//! Sums of pages, and the sum of what stands before and behind them: CRC-32 is linear, so no byte is read again.

use crate::PAGE_BYTES;

/// The polynomial of CRC-32 (IEEE 802.3), lowest bit first.
const POLYNOMIAL: u32 = 0xEDB8_8320;

/// CRC-32 (IEEE) of one page of 4 KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PageSum(pub u32);

impl PageSum {
    /// CRC-32 of bytes whose CRC-32 is `front`, with this page behind them.
    #[must_use]
    pub const fn behind(self, front: u32) -> u32 {
        past_a_page(front) ^ self.0
    }

    /// The sum of a page, when `whole` is the CRC-32 of bytes with the page behind them, and `front` that of the bytes.
    #[must_use]
    pub const fn without(whole: u32, front: u32) -> Self {
        Self(whole ^ past_a_page(front))
    }
}

/// What a CRC-32 becomes by 4 KiB of zeros, apart from what they add themselves: the product with x to the power of
/// their bits, from one table for each byte.
const fn past_a_page(sum: u32) -> u32 {
    let [a, b, c, d] = sum.to_le_bytes();
    PAST_A_PAGE[0][a as usize]
        ^ PAST_A_PAGE[1][b as usize]
        ^ PAST_A_PAGE[2][c as usize]
        ^ PAST_A_PAGE[3][d as usize]
}

static PAST_A_PAGE: [[u32; 256]; 4] = {
    let factor = x_to_the(8 * PAGE_BYTES);
    let mut tables = [[0; 256]; 4];
    let (mut place, mut byte) = (0, 0_u32);
    while place < 4 {
        tables[place][byte as usize] = product(byte << (8 * place), factor);
        byte += 1;
        if byte == 256 {
            (place, byte) = (place + 1, 0);
        }
    }
    tables
};

/// x to the power of `bits`, modulo the polynomial.
const fn x_to_the(bits: u64) -> u32 {
    let mut power = 1 << 31;
    let mut left = bits;
    while left > 0 {
        power = times_x(power);
        left -= 1;
    }
    power
}

const fn times_x(value: u32) -> u32 {
    let carried = if value & 1 == 1 { POLYNOMIAL } else { 0 };
    (value >> 1) ^ carried
}

/// The product of two polynomials, modulo the polynomial. Bit 31 is the 1, bit 0 is x to the 31st.
const fn product(one: u32, other: u32) -> u32 {
    let (mut sum, mut shifted, mut bit) = (0, other, 31);
    loop {
        if one >> bit & 1 == 1 {
            sum ^= shifted;
        }
        if bit == 0 {
            return sum;
        }
        shifted = times_x(shifted);
        bit -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CRC-32 as its definition has it, bit by bit.
    fn crc(bytes: impl IntoIterator<Item = u8>) -> u32 {
        let mut state = u32::MAX;
        for byte in bytes {
            state ^= u32::from(byte);
            for _ in 0..8 {
                state = times_x(state);
            }
        }
        !state
    }

    fn page(factor: u32) -> impl Iterator<Item = u8> + Clone {
        (0..4096_u32).map(move |at| u8::try_from((at * factor + factor) % 251).unwrap())
    }

    #[test]
    fn the_reference_is_the_crc_everyone_means() {
        assert_eq!(crc(*b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn a_page_behind_a_front_has_the_sum_of_both_and_gives_its_own_back() {
        for (factor, front) in [(1, &b""[..]), (7, b"x"), (13, b"a header of 24 bytes ...")] {
            let sum = PageSum(crc(page(factor)));
            let whole = crc(front.iter().copied().chain(page(factor)));
            assert_eq!(sum.behind(crc(front.iter().copied())), whole);
            assert_eq!(PageSum::without(whole, crc(front.iter().copied())), sum);
        }
    }

    #[test]
    fn the_sums_of_pages_make_the_sum_of_all_of_them_and_of_no_other_order() {
        let whole = crc(page(3).chain(page(5)).chain(page(3)));
        let [three, five] = [3, 5].map(|factor| PageSum(crc(page(factor))));
        let over = |sums: &[PageSum]| sums.iter().fold(crc([]), |front, sum| sum.behind(front));
        assert_eq!(over(&[three, five, three]), whole);
        assert_ne!(over(&[five, three, three]), whole);
    }
}
