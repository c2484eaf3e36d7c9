//! Which rows of which groups were selected, numbered through: position 0 to n - 1 in the order of the groups.
//!
//! A group of which all rows are selected costs nothing a row; of any other each row costs a bit, and a sixteenth of
//! one for the directory that finds the k-th selected row.

use lamina_format::{Error, Result};
use std::ops::Range;

/// Words of a mask that one entry of its directory covers.
const STRIDE: usize = 16;

/// The selected rows of one group.
pub struct Part {
    /// The group's index in the snapshot.
    pub group: usize,
    rows: u64,
    mask: Option<Mask>,
}

impl Part {
    /// All rows of a group.
    pub fn whole(group: usize, rows: u64) -> Self {
        Self { group, rows, mask: None }
    }

    /// The rows of a group whose bit is set; the first row's is the lowest of the first byte.
    pub fn masked(group: usize, rows: u64, bits: &[u8]) -> Result<Self> {
        if bits.len() as u64 != rows.div_ceil(8) {
            return Err(Error::schema(format!("a mask of {} bytes for {rows} rows", bits.len())));
        }
        let mask = Mask::new(bits, rows);
        let whole = mask.count == rows;
        Ok(Self { group, rows, mask: (!whole).then_some(mask) })
    }

    /// How many rows the group has.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// How many rows are selected.
    pub fn count(&self) -> u64 {
        self.mask.as_ref().map_or(self.rows, |mask| mask.count)
    }

    /// A bit a row, as `masked` takes it; None if all rows are selected.
    pub fn bits(&self) -> Option<Vec<u8>> {
        let mask = self.mask.as_ref()?;
        let bytes = mask.words.iter().flat_map(|word| word.to_le_bytes());
        Some(bytes.take(self.rows.div_ceil(8) as usize).collect())
    }

    /// The row of the group that is the k-th selected one, and how many follow it without a gap, itself included.
    fn run(&self, k: u64) -> (u64, u64) {
        match &self.mask {
            None => (k, self.rows - k),
            Some(mask) => {
                let row = mask.select(k);
                (row, mask.run(row))
            }
        }
    }

    fn row(&self, k: u64) -> u64 {
        self.mask.as_ref().map_or(k, |mask| mask.select(k))
    }
}

/// Bits with a directory of how many are set before.
struct Mask {
    words: Box<[u64]>,
    before: Box<[u64]>,
    count: u64,
}

impl Mask {
    fn new(bits: &[u8], rows: u64) -> Self {
        let word = |chunk: &[u8]| chunk.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
        let mut words: Box<[u64]> = bits.chunks(8).map(word).collect();
        if let Some(last) = words.last_mut().filter(|_| rows % 64 != 0) {
            *last &= (1 << (rows % 64)) - 1;
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
    fn select(&self, k: u64) -> u64 {
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
    fn run(&self, from: u64) -> u64 {
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

/// The selected rows of several groups.
#[derive(Default)]
pub struct Selection {
    parts: Vec<Part>,
    /// The position of each part's first row, and behind the last the number of rows.
    starts: Vec<u64>,
}

/// Rows that lie side by side: in which part, from which row of its group, how many.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// The part's number in the selection.
    pub part: usize,
    /// The row in the part's group.
    pub row: u64,
    /// How many rows.
    pub rows: u64,
}

impl Selection {
    /// Parts of which no row is selected are left out.
    pub fn new(parts: impl IntoIterator<Item = Part>) -> Self {
        let parts: Vec<Part> = parts.into_iter().filter(|part| part.count() > 0).collect();
        let mut starts = Vec::with_capacity(parts.len() + 1);
        starts.push(0);
        starts.extend(parts.iter().scan(0, |end, part| {
            *end += part.count();
            Some(*end)
        }));
        Self { parts, starts }
    }

    /// How many rows are selected.
    pub fn len(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0)
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The parts, in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The places of the rows at these positions, one each.
    pub fn places<'a>(&'a self, positions: &'a [i64]) -> impl Iterator<Item = Place> + 'a {
        let mut part = 0;
        positions.iter().map(move |&position| {
            let position = position as u64;
            // scattered positions often fall into the part of the one before
            if !self.starts.get(part..part + 2).is_some_and(|ends| ends[0] <= position && position < ends[1]) {
                part = self.part_of(position);
            }
            Place { part, row: self.parts[part].row(position - self.starts[part]), rows: 1 }
        })
    }

    /// The places of the rows at consecutive positions, as few as can be.
    pub fn runs(&self, positions: Range<u64>) -> impl Iterator<Item = Place> {
        let mut at = positions.start;
        let mut part = if positions.is_empty() { 0 } else { self.part_of(at) };
        std::iter::from_fn(move || {
            if at >= positions.end {
                return None;
            }
            while at >= self.starts[part + 1] {
                part += 1;
            }
            let (row, rows) = self.parts[part].run(at - self.starts[part]);
            let rows = rows.min(positions.end - at);
            at += rows;
            Some(Place { part, row, rows })
        })
    }

    fn part_of(&self, position: u64) -> usize {
        self.starts.partition_point(|&start| start <= position) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(rows: u64, is_set: impl Fn(u64) -> bool) -> Vec<u8> {
        (0..rows.div_ceil(8))
            .map(|byte| (0..8).fold(0, |bits, bit| bits | u8::from(byte * 8 + bit < rows && is_set(byte * 8 + bit)) << bit))
            .collect()
    }

    /// What is selected, listed row by row.
    fn listed(groups: &[(usize, Vec<u64>)]) -> Vec<(usize, u64)> {
        groups.iter().flat_map(|(part, rows)| rows.iter().map(move |&row| (*part, row))).collect()
    }

    #[test]
    fn positions_count_the_selected_rows_through_the_groups() {
        let chosen = |row: u64| row % 3 == 0 || (700..1400).contains(&row);
        for rows in [1, 63, 64, 65, 1023, 1024, 1025, 5000] {
            let parts = [
                Part::masked(4, rows, &bits(rows, chosen)).unwrap(),
                Part::masked(5, 100, &[0; 13]).unwrap(),
                Part::whole(6, 70),
                Part::masked(7, 66, &[0xFF; 9]).unwrap(),
            ];
            let selection = Selection::new(parts);
            let groups: Vec<usize> = selection.parts().iter().map(|part| part.group).collect();
            assert_eq!(groups, [4, 6, 7], "a part without rows is left out");
            assert!(selection.parts()[2].bits().is_none(), "bits behind the last row do not count");
            let first: Vec<u64> = (0..rows).filter(|&row| chosen(row)).collect();
            let expected = listed(&[(0, first), (1, (0..70).collect()), (2, (0..66).collect())]);
            assert_eq!(selection.len(), expected.len() as u64);
            let backwards: Vec<i64> = (0..expected.len() as i64).rev().collect();
            let places: Vec<_> = selection.places(&backwards).map(|place| (place.part, place.row)).collect();
            assert!(places.iter().rev().eq(&expected), "{rows} rows");
            for range in [0..selection.len(), 1..selection.len() - 1, 5..5] {
                let runs: Vec<Place> = selection.runs(range.clone()).collect();
                let spread = runs.iter().flat_map(|run| (0..run.rows).map(|i| (run.part, run.row + i)));
                assert!(spread.eq(expected[range.start as usize..range.end as usize].iter().copied()), "{rows} rows");
                let parted = |pair: &[Place]| pair[0].part != pair[1].part || pair[0].row + pair[0].rows < pair[1].row;
                assert!(runs.windows(2).all(parted), "a run ends only where a gap begins");
            }
        }
    }

    #[test]
    fn a_mask_costs_a_bit_a_row_and_comes_back_as_it_went_in() {
        let given = bits(100_000, |row| row % 7 == 2);
        let part = Part::masked(0, 100_000, &given).unwrap();
        let mask = part.mask.as_ref().unwrap();
        assert!((mask.words.len() + mask.before.len()) * 64 < 107_500);
        assert_eq!(part.bits().unwrap(), given);
        assert!(Part::masked(0, 100_000, &given[1..]).is_err());
    }

    #[test]
    fn more_rows_than_32_bits_count() {
        let selection = Selection::new([Part::whole(0, 1 << 33), Part::masked(1, 9, &[0b1000_0001, 1]).unwrap()]);
        assert_eq!(selection.len(), (1 << 33) + 3);
        let far = [(1 << 33) - 1, 1 << 32, (1 << 33) + 2];
        let places: Vec<_> = selection.places(&far).map(|place| (place.part, place.row)).collect();
        assert_eq!(places, [(0, (1 << 33) - 1), (0, 1 << 32), (1, 8)]);
        let runs: Vec<_> = selection.runs((1 << 33) - 5..(1 << 33) + 1).collect();
        assert_eq!(runs[0], Place { part: 0, row: (1 << 33) - 5, rows: 5 });
        assert_eq!(runs[1], Place { part: 1, row: 0, rows: 1 });
    }
}
