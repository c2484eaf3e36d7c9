//! Small numbers in a few bits each, one behind the other: how the rows of a feature lie in an index.

/// Numbers that are packed together.
pub const BLOCK: usize = 128;

/// Bits that the greatest of some numbers needs.
pub fn bits(numbers: &[u32]) -> u32 {
    32 - numbers.iter().fold(0, |all, number| all | number).leading_zeros()
}

/// Bytes that so many numbers of so many bits take.
pub fn bytes(count: usize, bits: u32) -> usize {
    (count * bits as usize).div_ceil(8)
}

/// Puts numbers of at most `bits` bits behind `out`; the first number's lowest bit is the first byte's.
pub fn pack(numbers: &[u32], bits: u32, out: &mut Vec<u8>) {
    let (mut held, mut filled) = (0u64, 0);
    for &number in numbers {
        held |= u64::from(number) << filled;
        filled += bits;
        if filled >= 32 {
            out.extend_from_slice(&(held as u32).to_le_bytes());
            held >>= 32;
            filled -= 32;
        }
    }
    out.extend_from_slice(&held.to_le_bytes()[..filled.div_ceil(8) as usize]);
}

/// Fills `out`, of at most [`BLOCK`] numbers, from what [`pack`] made of them; bytes that are missing stand for zeros.
pub fn unpack(packed: &[u8], bits: u32, out: &mut [u32]) {
    // numbers are taken out of eight bytes at once, those behind the last are never used
    let mut padded = [0; 4 * BLOCK + 8];
    let length = packed.len().min(4 * BLOCK);
    padded[..length].copy_from_slice(&packed[..length]);
    let mask = (1u64 << bits.min(32)) - 1;
    let mut at = 0;
    for number in out.iter_mut().take(BLOCK) {
        let eight = padded[at / 8..].first_chunk().copied().map_or(0, u64::from_le_bytes);
        *number = (eight >> (at % 8) & mask) as u32;
        at += bits.min(32) as usize;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_lie_bit_behind_bit() {
        let mut packed = Vec::new();
        pack(&[1, 2, 7, 0, 5], 3, &mut packed);
        assert_eq!(packed, [0b1101_0001, 0b0101_0001]);
        assert_eq!((bits(&[]), bits(&[0]), bits(&[4, 3]), bits(&[u32::MAX])), (0, 0, 3, 32));
        assert_eq!((bytes(0, 32), bytes(3, 3), bytes(128, 32)), (0, 2, 512));
    }

    proptest! {
        #[test]
        fn what_was_packed_comes_back(
            wide in proptest::collection::vec(any::<u32>(), 0..=BLOCK), narrower in 0u32..32, more in 0u32..3,
        ) {
            let numbers: Vec<u32> = wide.iter().map(|number| number >> narrower).collect();
            let bits = (bits(&numbers) + more).min(32);
            let mut packed = vec![7];
            pack(&numbers, bits, &mut packed);
            prop_assert_eq!(packed.len(), 1 + bytes(numbers.len(), bits));
            let mut back = vec![9; numbers.len()];
            unpack(&packed[1..], bits, &mut back);
            prop_assert_eq!(back, numbers);
        }

        #[test]
        fn any_bytes_are_numbers(packed in proptest::collection::vec(any::<u8>(), 0..600), bits in 0u32..40) {
            unpack(&packed, bits, &mut [0; BLOCK]);
        }
    }
}
