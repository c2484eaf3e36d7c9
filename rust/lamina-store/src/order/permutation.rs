//! A permutation of 0 to n - 1 in constant memory.
//!
//! Up to 1,024 numbers are shuffled in a table, where every permutation is equally likely. More go through a Feistel
//! network over the next power of two; what falls outside goes through it again until it falls inside (cycle walking),
//! less than twice on average. Keys come from BLAKE3.

use lamina_format::checksum;

const TABLE: u64 = 1024;
const ROUNDS: usize = 6;

/// A permutation.
pub struct Permutation {
    n: u64,
    how: How,
}

enum How {
    Table(Box<[u64]>),
    Network { left: u32, right: u32, keys: [u64; ROUNDS] },
}

/// Numbers that follow from a text, and from nothing else.
struct Stream<'a> {
    seed: &'a [u8],
    drawn: u64,
}

impl Stream<'_> {
    fn next(&mut self) -> u64 {
        let hash = checksum::hash(&[self.seed, &self.drawn.to_le_bytes()].concat());
        self.drawn += 1;
        hash.iter().take(8).rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
    }
}

impl Permutation {
    /// The permutation of `n` numbers that `seed` names: one seed, one permutation, on every machine.
    pub fn new(n: u64, seed: &[u8]) -> Self {
        let mut stream = Stream { seed, drawn: 0 };
        if n <= TABLE {
            let mut table: Box<[u64]> = (0..n).collect();
            for last in (1..n).rev() {
                // the bias of a multiplication is below 2^-54 here
                let other = (u128::from(stream.next()) * u128::from(last + 1)) >> 64;
                table.swap(last as usize, other as usize);
            }
            return Self { n, how: How::Table(table) };
        }
        let bits = u64::BITS - (n - 1).leading_zeros();
        let (left, right) = (bits / 2, bits - bits / 2);
        Self { n, how: How::Network { left, right, keys: std::array::from_fn(|_| stream.next()) } }
    }

    /// Where the permutation sends a number below n.
    #[inline]
    pub fn at(&self, number: u64) -> u64 {
        match &self.how {
            How::Table(table) => table[number as usize],
            How::Network { left, right, keys } => {
                let mut number = forward(number, *left, *right, keys);
                while number >= self.n {
                    number = forward(number, *left, *right, keys);
                }
                number
            }
        }
    }

    /// Which number the permutation sends to this one.
    pub fn inverse(&self, number: u64) -> u64 {
        match &self.how {
            How::Table(table) => table.iter().position(|&image| image == number).unwrap_or(0) as u64,
            How::Network { left, right, keys } => {
                let mut number = backward(number, *left, *right, keys);
                while number >= self.n {
                    number = backward(number, *left, *right, keys);
                }
                number
            }
        }
    }
}

/// Mixes a half with a key; the halves are as wide as the masks that callers lay over it.
#[inline]
fn mixed(half: u64, key: u64) -> u64 {
    // the odd factors of MurmurHash3's finalizer
    let number = (half ^ key).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    let number = (number ^ number >> 33).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    number ^ number >> 33
}

// Even rounds change the upper half by the lower one, odd rounds the lower by the upper: halves may differ in width.

#[inline]
fn forward(number: u64, left: u32, right: u32, keys: &[u64; ROUNDS]) -> u64 {
    let (mut upper, mut lower) = (number >> right, number & ((1 << right) - 1));
    for pair in keys.as_chunks::<2>().0 {
        upper ^= mixed(lower, pair[0]) & ((1 << left) - 1);
        lower ^= mixed(upper, pair[1]) & ((1 << right) - 1);
    }
    upper << right | lower
}

fn backward(number: u64, left: u32, right: u32, keys: &[u64; ROUNDS]) -> u64 {
    let (mut upper, mut lower) = (number >> right, number & ((1 << right) - 1));
    for pair in keys.as_chunks::<2>().0.iter().rev() {
        lower ^= mixed(upper, pair[1]) & ((1 << right) - 1);
        upper ^= mixed(lower, pair[0]) & ((1 << left) - 1);
    }
    upper << right | lower
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn every_number_comes_once_and_the_inverse_leads_back() {
        for n in [1, 2, 5, 1024, 1025, 2048, 2049, 4097, 100_000] {
            let permutation = Permutation::new(n, b"seed");
            let mut seen = vec![false; n as usize];
            for number in 0..n {
                let image = permutation.at(number);
                assert!(!std::mem::replace(&mut seen[image as usize], true), "{image} of {n} came twice");
                if n < 1025 || number % 97 == 0 {
                    assert_eq!(permutation.inverse(image), number, "n = {n}");
                }
            }
        }
    }

    #[test]
    fn far_more_than_32_bits_of_numbers_are_permuted() {
        let n = (1 << 40) + 12_345;
        let permutation = Permutation::new(n, b"far");
        let images: Vec<u64> = (n - 1000..n).map(|number| permutation.at(number)).collect();
        assert!(images.iter().all(|&image| image < n));
        assert!(images.iter().zip(n - 1000..).all(|(&image, number)| permutation.inverse(image) == number));
        let high = images.iter().filter(|&&image| image > n / 2).count();
        assert!((400..600).contains(&high), "{high} of 1000 in the upper half");
    }

    #[test]
    fn seeds_tell_permutations_apart_and_name_them_for_ever() {
        let first = |n, seed: &[u8]| -> Vec<u64> {
            let permutation = Permutation::new(n, seed);
            (0..6).map(|number| permutation.at(number)).collect()
        };
        assert_eq!(first(6, b"a"), first(6, b"a"));
        assert_ne!(first(1 << 20, b"a"), first(1 << 20, b"b"));
    }

    #[test]
    fn few_numbers_come_in_every_order_alike() {
        let mut counts: HashMap<Vec<u64>, u32> = HashMap::new();
        for seed in 0..12_000u32 {
            let permutation = Permutation::new(4, &seed.to_le_bytes());
            *counts.entry((0..4).map(|number| permutation.at(number)).collect()).or_default() += 1;
        }
        // 24 orders, 500 expected of each: chi-squared with 23 degrees of freedom is above 49.7 once in 1000
        let chi: f64 = counts.values().map(|&count| (f64::from(count) - 500.0).powi(2) / 500.0).sum();
        assert!(counts.len() == 24 && chi < 49.7, "{chi}");
    }

    #[test]
    fn a_network_sends_numbers_anywhere_alike() {
        // where 0 and 1 go over many keys, in 16 x 16 boxes: 255 degrees of freedom, above 330.5 once in 1000
        let (n, keys) = (3000, 25_600u32);
        let mut boxes = [0u32; 256];
        for seed in 0..keys {
            let permutation = Permutation::new(n, &seed.to_le_bytes());
            boxes[(permutation.at(0) * 16 / n * 16 + permutation.at(1) * 16 / n) as usize] += 1;
        }
        let chi: f64 = boxes.iter().map(|&count| (f64::from(count) - 100.0).powi(2) / 100.0).sum();
        assert!(chi < 330.5, "{chi}");
    }
}
