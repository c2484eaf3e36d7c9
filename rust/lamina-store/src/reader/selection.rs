//! Which rows of which groups were selected, numbered through: position 0 to n - 1 in the order of the parts.
//!
//! Rows of a group that stand one after another cost nothing a row. Others cost a bit each row of their group and a
//! sixteenth of one for the directory that finds the k-th selected row, or a number each selected row where that is less.

use super::bits::Bits;
use lamina_format::{Error, Result};
use std::ops::Range;

/// Selected rows of one group.
pub struct Part {
    /// The group's index in the snapshot.
    pub group: usize,
    rows: Rows,
}

enum Rows {
    Side { first: u64, count: u64 },
    Mask(Bits),
    List(Box<[u32]>),
}

/// A part without its group, as it is stored elsewhere.
pub enum Described {
    /// The first row, and how many.
    Side(u64, u64),
    /// A bit a row of the group; the first row's is the lowest of the first byte.
    Mask(Vec<u8>),
    /// The rows.
    List(Vec<u32>),
}

impl Part {
    /// All rows of a group.
    pub fn whole(group: usize, rows: u64) -> Self {
        Self { group, rows: Rows::Side { first: 0, count: rows } }
    }

    /// These rows of a group that has `of` rows.
    pub fn at(group: usize, of: u64, rows: &[i64]) -> Result<Self> {
        if let Some(beyond) = rows.iter().find(|&&row| row < 0 || row as u64 >= of) {
            return Err(Error::schema(format!("row {beyond} is outside of a group of {of} rows")));
        }
        let (first, count) = (rows.first().map_or(0, |&row| row as u64), rows.len() as u64);
        let rows = if rows.windows(2).all(|pair| pair[1] == pair[0] + 1) {
            Rows::Side { first, count }
        } else if of > u64::from(u32::MAX) || count * 32 >= of && rows.is_sorted_by(|a, b| a < b) {
            let mut bits = vec![0; of.div_ceil(8) as usize];
            rows.iter().for_each(|&row| bits[row as usize / 8] |= 1 << (row % 8));
            Rows::Mask(Bits::new(&bits, of))
        } else {
            Rows::List(rows.iter().map(|&row| row as u32).collect())
        };
        Ok(Self { group, rows })
    }

    /// What [`Part::described`] said of a part, in a group that has `of` rows.
    pub fn of(group: usize, of: u64, described: &Described) -> Result<Self> {
        let wrong = || Error::schema(format!("a selection names rows outside of a group of {of} rows"));
        let rows = match described {
            Described::Side(first, count) if first.checked_add(*count).is_some_and(|end| end <= of) => {
                Rows::Side { first: *first, count: *count }
            }
            Described::Mask(bits) if bits.len() as u64 == of.div_ceil(8) => Rows::Mask(Bits::new(bits, of)),
            Described::List(rows) if rows.iter().all(|&row| u64::from(row) < of) => Rows::List(rows.as_slice().into()),
            _ => return Err(wrong()),
        };
        Ok(Self { group, rows })
    }

    /// The part without its group.
    pub fn described(&self, of: u64) -> Described {
        match &self.rows {
            Rows::Side { first, count } => Described::Side(*first, *count),
            Rows::Mask(mask) => {
                let bytes = mask.words.iter().flat_map(|word| word.to_le_bytes());
                Described::Mask(bytes.take(of.div_ceil(8) as usize).collect())
            }
            Rows::List(rows) => Described::List(rows.to_vec()),
        }
    }

    /// How many rows are selected.
    pub fn count(&self) -> u64 {
        match &self.rows {
            Rows::Side { count, .. } => *count,
            Rows::Mask(mask) => mask.count,
            Rows::List(rows) => rows.len() as u64,
        }
    }

    /// The row of the group that is the k-th selected one, and how many follow it without a gap, itself included.
    fn run(&self, k: u64) -> (u64, u64) {
        match &self.rows {
            Rows::Side { first, count } => (first + k, count - k),
            Rows::Mask(mask) => {
                let row = mask.select(k);
                (row, mask.run(row))
            }
            Rows::List(rows) => {
                let rest = &rows[k as usize..];
                let more = rest.windows(2).take_while(|pair| pair[0].checked_add(1) == Some(pair[1])).count();
                (u64::from(rest[0]), more as u64 + 1)
            }
        }
    }

    fn row(&self, k: u64) -> u64 {
        match &self.rows {
            Rows::Side { first, .. } => first + k,
            Rows::Mask(mask) => mask.select(k),
            Rows::List(rows) => u64::from(rows[k as usize]),
        }
    }
}

/// The selected rows of several groups.
#[derive(Default)]
pub struct Selection {
    parts: Vec<Part>,
    /// The position of each part's first row, and behind the last the number of rows.
    starts: Vec<u64>,
    /// Parts a position: most runs have groups of one size, and this then tells where to look.
    density: f64,
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
        let usual = parts.first().map_or(0, Part::count);
        Self { parts, starts, density: if usual > 0 { 1.0 / usual as f64 } else { 0.0 } }
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
        let guess = (position as f64 * self.density) as usize;
        if self.starts.get(guess..guess + 2).is_some_and(|ends| ends[0] <= position && position < ends[1]) {
            return guess;
        }
        self.starts.partition_point(|&start| start <= position) - 1
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn rows(of: u64, is_chosen: impl Fn(u64) -> bool) -> Vec<i64> {
        (0..of).filter(|&row| is_chosen(row)).map(|row| row as i64).collect()
    }

    fn check(selection: &Selection, expected: &[(usize, u64)]) {
        assert_eq!(selection.len(), expected.len() as u64);
        let backwards: Vec<i64> = (0..expected.len() as i64).rev().collect();
        let places: Vec<_> = selection.places(&backwards).map(|place| (place.part, place.row)).collect();
        assert!(places.iter().rev().eq(expected));
        for range in [0..selection.len(), 1..selection.len() - 1, 5..5] {
            let runs: Vec<Place> = selection.runs(range.clone()).collect();
            let spread = runs.iter().flat_map(|run| (0..run.rows).map(|i| (run.part, run.row + i)));
            assert!(spread.eq(expected[range.start as usize..range.end as usize].iter().copied()));
            let parted = |pair: &[Place]| pair[0].part != pair[1].part || pair[0].row + pair[0].rows != pair[1].row;
            assert!(runs.windows(2).all(parted), "a run ends only where a gap begins");
        }
    }

    #[test]
    fn positions_count_the_selected_rows_through_the_parts() {
        let chosen = |row: u64| row.is_multiple_of(3) || (700..1400).contains(&row);
        for of in [7, 63, 64, 65, 1023, 1024, 1025, 5000] {
            let first = rows(of, chosen);
            let shuffled = [5, 0, 1, 2, 69, 4];
            let parts = || {
                [
                    Part::at(4, of, &first).unwrap(),
                    Part::at(5, 100, &[]).unwrap(),
                    Part::whole(6, 70),
                    Part::at(7, 70, &shuffled).unwrap(),
                    Part::at(8, 66, &[61, 62, 63, 64, 65]).unwrap(),
                ]
            };
            let selection = Selection::new(parts());
            let groups: Vec<usize> = selection.parts().iter().map(|part| part.group).collect();
            assert_eq!(groups, [4, 6, 7, 8], "a part without rows is left out");
            let mut expected: Vec<(usize, u64)> = first.iter().map(|&row| (0, row as u64)).collect();
            expected.extend((0..70).map(|row| (1, row)));
            expected.extend(shuffled.map(|row| (2, row as u64)));
            expected.extend((61..66).map(|row| (3, row)));
            check(&selection, &expected);
            let sizes = [of, 100, 70, 70, 66];
            let again = parts()
                .iter()
                .zip(sizes)
                .map(|(p, of)| Part::of(p.group, of, &p.described(of)).unwrap())
                .collect::<Vec<_>>();
            check(&Selection::new(again), &expected);
        }
    }

    #[test]
    fn many_rows_cost_a_bit_each_and_few_a_number() {
        let many = Part::at(0, 100_000, &rows(100_000, |row| row % 7 == 2)).unwrap();
        let Rows::Mask(mask) = &many.rows else { panic!("a mask is least") };
        assert!((mask.words.len() + mask.before.len()) * 64 < 107_500);
        let few = Part::at(0, 100_000, &rows(100_000, |row| row % 1000 == 2)).unwrap();
        assert!(matches!(&few.rows, Rows::List(rows) if rows.len() == 100));
        let side = Part::at(0, 100_000, &rows(100_000, |row| row > 500)).unwrap();
        assert!(matches!(side.rows, Rows::Side { first: 501, count: 99_499 }));
    }

    #[test]
    fn what_does_not_fit_a_group_is_refused() {
        assert!(Part::at(0, 5, &[5]).is_err() && Part::at(0, 5, &[-1]).is_err());
        let wrong = [
            Described::Side(3, 3),
            Described::Side(u64::MAX, 2),
            Described::Mask(vec![0; 2]),
            Described::List(vec![5]),
        ];
        assert!(wrong.iter().all(|described| Part::of(0, 5, described).is_err()));
        assert_eq!(
            Part::of(0, 5, &Described::Mask(vec![0xFF])).unwrap().count(),
            5,
            "bits behind the last row do not count"
        );
    }

    #[test]
    fn more_rows_than_32_bits_count() {
        let selection = Selection::new([Part::whole(0, 1 << 33), Part::at(1, 9, &[0, 7, 8]).unwrap()]);
        assert_eq!(selection.len(), (1 << 33) + 3);
        let far = [(1 << 33) - 1, 1 << 32, (1 << 33) + 2];
        let places: Vec<_> = selection.places(&far).map(|place| (place.part, place.row)).collect();
        assert_eq!(places, [(0, (1 << 33) - 1), (0, 1 << 32), (1, 8)]);
        let runs: Vec<_> = selection.runs((1 << 33) - 5..(1 << 33) + 1).collect();
        assert_eq!(runs[0], Place { part: 0, row: (1 << 33) - 5, rows: 5 });
        assert_eq!(runs[1], Place { part: 1, row: 0, rows: 1 });
    }
}
