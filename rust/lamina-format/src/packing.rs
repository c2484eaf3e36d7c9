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

/// Puts at most [`BLOCK`] numbers of at most `bits` bits behind `out`; the first number's lowest bit is the first byte's.
pub fn pack(numbers: &[u32], bits: u32, out: &mut Vec<u8>) {
    // neighbors are joined first, many at a time: what comes one after another then comes half or a quarter as often
    let mut pairs = [0u64; BLOCK / 2];
    let (twos, rest) = numbers.as_chunks::<2>();
    for (pair, &[first, second]) in pairs.iter_mut().zip(twos) {
        *pair = u64::from(first) | u64::from(second) << bits;
    }
    if let (Some(pair), Some(&last)) = (pairs.get_mut(twos.len()), rest.first()) {
        *pair = last.into();
    }
    if bits > 16 {
        return put(&pairs[..numbers.len().div_ceil(2)], 2 * bits, bytes(numbers.len(), bits), out);
    }
    let mut fours = [0u64; BLOCK / 4];
    for (four, &[first, second]) in fours.iter_mut().zip(pairs.as_chunks::<2>().0) {
        *four = first | second << (2 * bits);
    }
    put(&fours[..numbers.len().div_ceil(4)], 4 * bits, bytes(numbers.len(), bits), out);
}

/// Puts words of `bits` bits behind each other, and the first `length` bytes of them behind `out`.
fn put(words: &[u64], bits: u32, length: usize, out: &mut Vec<u8>) {
    let mut packed = [0; 4 * BLOCK + 8];
    let mut eights = packed.as_chunks_mut().0.iter_mut();
    let (mut held, mut filled) = (0u64, 0);
    for &word in words {
        held |= word << filled;
        filled += bits;
        if filled >= 64 {
            if let Some(eight) = eights.next() {
                *eight = held.to_le_bytes();
            }
            filled -= 64;
            // the upper bits of the word, none if it ended with the eight bytes
            held = word >> 1 >> (bits - 1 - filled);
        }
    }
    if let Some(eight) = eights.next() {
        *eight = held.to_le_bytes();
    }
    out.extend_from_slice(&packed[..length]);
}

/// Fills `out`, of at most [`BLOCK`] numbers, from what [`pack`] made of them; bytes that are missing stand for zeros.
pub fn unpack(packed: &[u8], bits: u32, out: &mut [u32]) {
    let bits = bits.min(32) as usize;
    let mask = (1u64 << bits) - 1;
    let number = |bytes: &[u8], at: usize| {
        let eight = bytes.get(at / 8..).and_then(<[u8]>::first_chunk).copied().map_or(0, u64::from_le_bytes);
        (eight >> (at % 8) & mask) as u32
    };
    // numbers are taken out of eight bytes at once; the last ones from a copy, behind which there are more
    let alone = packed.len().saturating_sub(7) * 8;
    let (front, back) = out.split_at_mut(if bits == 0 { 0 } else { alone.div_ceil(bits).min(out.len()) });
    front.iter_mut().enumerate().for_each(|(at, out)| *out = number(packed, at * bits));
    let last = packed.get(front.len() * bits / 8..).unwrap_or_default();
    let mut padded = [0; 16];
    padded.iter_mut().zip(last).for_each(|(to, &byte)| *to = byte);
    let from = front.len() * bits % 8;
    back.iter_mut().enumerate().for_each(|(at, out)| *out = number(&padded, from + at * bits));
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
