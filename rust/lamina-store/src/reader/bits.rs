//! Bits of which the k-th that is set is found without counting all before it.

/// Words that one entry of its directory covers.
const STRIDE: usize = 16;

/// Bits with a directory of how many are set before.
pub struct Bits {
    pub words: Box<[u64]>,
    pub before: Box<[u64]>,
    pub count: u64,
}

impl Bits {
    /// The lowest of the first byte is the first; those behind `length` do not count.
    pub fn new(bits: &[u8], length: u64) -> Self {
        let word = |chunk: &[u8]| chunk.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
        let mut words: Box<[u64]> = bits.chunks(8).map(word).collect();
        if let Some(last) = words.last_mut().filter(|_| !length.is_multiple_of(64)) {
            *last &= (1 << (length % 64)) - 1;
        }
        let mut count = 0;
        let stride = |words: &[u64]| {
            let before = count;
            count += words.iter().map(|word| u64::from(word.count_ones())).sum::<u64>();
            before
        };
        let before = words.chunks(STRIDE).map(stride).collect();
        Self { words, before, count }
    }

    /// The place of the k-th bit that is set; k is less than their count.
    pub fn select(&self, k: u64) -> u64 {
        let stride = self.before.partition_point(|&before| before <= k) - 1;
        let mut left = k - self.before[stride];
        for (at, &word) in self.words.iter().enumerate().skip(stride * STRIDE) {
            let ones = u64::from(word.count_ones());
            if left < ones {
                return at as u64 * 64 + u64::from(nth_one(word, left as u32));
            }
            left -= ones;
        }
        unreachable!("fewer bits than counted")
    }

    /// How many bits from this one on are set without a gap.
    pub fn run(&self, from: u64) -> u64 {
        let (mut at, mut length) = (from as usize / 64, 0);
        let mut ones = (self.words[at] >> (from % 64)).trailing_ones();
        let mut most = 64 - (from % 64) as u32;
        loop {
            length += u64::from(ones);
            at += 1;
            if ones < most || at == self.words.len() {
                return length;
            }
            (ones, most) = (self.words[at].trailing_ones(), 64);
        }
    }
}

/// The place of the n-th bit that is set in a word.
fn nth_one(mut word: u64, n: u32) -> u32 {
    for _ in 0..n {
        word &= word - 1;
    }
    word.trailing_zeros()
}
