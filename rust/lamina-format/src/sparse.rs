//! Sparse codes in memory, as compressed sparse rows, and what their blocks must satisfy.

use crate::dtype::DType;
use crate::record::{Role, Site};

/// Codes of some rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Codes {
    /// Rows + 1 of them: row i has the units from the i-th to before the next.
    pub indptr: Vec<u32>,
    /// The feature of each unit, ascending in a row.
    pub ids: Vec<u32>,
    /// The value of each unit, little-endian.
    pub values: Vec<u8>,
}

impl Default for Codes {
    fn default() -> Self {
        Self { indptr: vec![0], ids: Vec::new(), values: Vec::new() }
    }
}

/// What is wrong with the blocks of some codes.
#[derive(Debug, PartialEq)]
pub struct Flaw {
    /// In which block.
    pub role: Role,
    /// At which of its bytes.
    pub at: usize,
    /// What.
    pub text: &'static str,
}

impl Codes {
    /// Codes from row pointers and the ids and values as they are stored. What passes can be used without a look: rows lie
    /// behind each other, and ids ascend and are features.
    pub fn parse(site: &Site, indptr: Vec<u32>, ids: &[u8], values: Vec<u8>) -> Result<Self, Flaw> {
        let long = || Flaw { role: Role::Ids, at: 0, text: "the codes are longer than memory" };
        let ids = numbers(ids, site.id_dtype()).ok_or_else(long)?;
        check_indptr(&indptr, ids.len() as u64)?;
        if values.len() as u64 != ids.len() as u64 * site.dtype.size() {
            return Err(Flaw { role: Role::Site, at: 0, text: "there are not as many values as ids" });
        }
        let codes = Self { indptr, ids, values };
        for row in 0..codes.rows() {
            if let Some(text) = flaw_of_row(codes.ids_of(row), site.width()) {
                let at = codes.indptr[row] as usize * site.id_dtype().size() as usize;
                return Err(Flaw { role: Role::Ids, at, text });
            }
        }
        Ok(codes)
    }

    /// How many rows.
    pub fn rows(&self) -> usize {
        self.indptr.len() - 1
    }

    /// The features of a row.
    pub fn ids_of(&self, row: usize) -> &[u32] {
        &self.ids[self.indptr[row] as usize..self.indptr[row + 1] as usize]
    }

    /// The ids from the `from`-th to before the `to`-th as they are stored.
    pub fn stored_ids(&self, dtype: DType, from: usize, to: usize) -> Vec<u8> {
        let ids = &self.ids[from..to];
        match dtype {
            DType::U16 => ids.iter().flat_map(|&id| (id as u16).to_le_bytes()).collect(),
            _ => ids.iter().flat_map(|&id| id.to_le_bytes()).collect(),
        }
    }

    /// Puts some rows of other codes, whose values are of `size` bytes, behind these. None if there are more units then than
    /// row pointers can count.
    pub fn extend(&mut self, other: &Self, rows: impl Iterator<Item = usize>, size: usize) -> Option<()> {
        for row in rows {
            let (from, to) = (other.indptr[row] as usize, other.indptr[row + 1] as usize);
            self.ids.extend_from_slice(&other.ids[from..to]);
            self.values.extend_from_slice(&other.values[from * size..to * size]);
            self.indptr.push(u32::try_from(self.ids.len()).ok()?);
        }
        Some(())
    }
}

/// A number of codes, as it lies in a file or in memory.
pub trait Stored: Copy {
    /// The number.
    fn number(self) -> u32;

    /// How many of numbers that ascend are less than a limit.
    fn below(ascending: &[Self], limit: u32) -> usize {
        match ascending.len() {
            // without a branch, so that the loop compares many at a time
            0..=256 => ascending.iter().map(|number| u32::from(number.number() < limit)).sum::<u32>() as usize,
            _ => ascending.partition_point(|number| number.number() < limit),
        }
    }
}

impl Stored for u32 {
    #[inline]
    fn number(self) -> u32 {
        self
    }
}

impl Stored for [u8; 2] {
    #[inline]
    fn number(self) -> u32 {
        u16::from_le_bytes(self).into()
    }

    fn below(ascending: &[Self], limit: u32) -> usize {
        let Ok(limit) = u16::try_from(limit) else { return ascending.len() };
        match ascending.len() {
            // counted in two bytes, eight at a time
            0..=256 => ascending.iter().map(|&id| u16::from(u16::from_le_bytes(id) < limit)).sum::<u16>().into(),
            _ => ascending.partition_point(|&id| u16::from_le_bytes(id) < limit),
        }
    }
}

impl Stored for [u8; 4] {
    #[inline]
    fn number(self) -> u32 {
        u32::from_le_bytes(self)
    }
}

/// What is wrong with the ids of a row.
pub fn flaw_of_row(ids: &[impl Stored], width: u64) -> Option<&'static str> {
    // without a way out, so that the loop compares many at a time
    let pairs = ids.iter().zip(ids.iter().skip(1));
    let ascends = pairs.fold(true, |so_far, (a, b)| so_far & (a.number() < b.number()));
    match ids.last() {
        Some(last) if u64::from(last.number()) >= width => Some("an id is no feature"),
        _ if !ascends => Some("ids do not ascend in a row"),
        _ => None,
    }
}

/// Whether row pointers lead through `active` units.
pub fn check_indptr(indptr: &[u32], active: u64) -> Result<(), Flaw> {
    check_pointers(indptr, 0, indptr.len().saturating_sub(1), active)
}

/// Whether some row pointers, from the `from`-th of `rows` + 1 on, may be among those that lead through `active` units.
pub fn check_pointers(pointers: &[u32], from: usize, rows: usize, active: u64) -> Result<(), Flaw> {
    let flaw = |at: usize, text| Err(Flaw { role: Role::Indptr, at: 4 * (from + at), text });
    if from == 0 && pointers.first() != Some(&0) {
        return flaw(0, "row pointers do not begin with 0");
    }
    if let Some(at) = pointers.windows(2).position(|pair| pair[0] > pair[1]) {
        return flaw(at + 1, "row pointers do not ascend");
    }
    let (at, last) = (pointers.len().saturating_sub(1), pointers.last().map(|&end| u64::from(end)));
    let fits = if from + at == rows { last == Some(active) } else { last.is_none_or(|last| last <= active) };
    if fits { Ok(()) } else { flaw(at, "row pointers do not end with the last active unit") }
}

/// Stored u16s or u32s; None if there is no memory for so many. Coded ones may be many times longer than their file.
fn numbers(bytes: &[u8], dtype: DType) -> Option<Vec<u32>> {
    let mut numbers = Vec::new();
    numbers.try_reserve_exact(bytes.len() / dtype.size() as usize).ok()?;
    match dtype {
        DType::U16 => numbers.extend(bytes.as_chunks().0.iter().map(|&bytes| u32::from(u16::from_le_bytes(bytes)))),
        _ => numbers.extend(bytes.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes))),
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(width: u64) -> Site {
        Site { id: 0, name: "sae".to_owned(), dtype: DType::F16, shape: vec![width], sparse: Some(true) }
    }

    fn parse(width: u64, indptr: &[u32], ids: &[u32], values: usize) -> Result<Codes, Flaw> {
        let codes = Codes { indptr: vec![], ids: ids.to_vec(), values: vec![] };
        Codes::parse(
            &site(width),
            indptr.to_vec(),
            &codes.stored_ids(site(width).id_dtype(), 0, ids.len()),
            vec![0; 2 * values],
        )
    }

    #[test]
    fn codes_come_back_and_every_lie_is_found_where_it_stands() {
        for width in [9, 1 << 16, 70_000] {
            let codes = parse(width, &[0, 2, 2, 3], &[0, 8, 4], 3).expect("honest");
            assert_eq!((codes.rows(), codes.ids_of(0), codes.ids_of(1)), (3, &[0, 8][..], &[][..]));
        }
        type Lie = (&'static [u32], &'static [u32], usize, Role, usize);
        let lies: [Lie; 8] = [
            (&[], &[], 0, Role::Indptr, 0),
            (&[1, 1], &[3], 1, Role::Indptr, 0),
            (&[0, 2, 1, 3], &[1, 2, 3], 3, Role::Indptr, 8),
            (&[0, 1], &[1, 2], 2, Role::Indptr, 4),
            (&[0, u32::MAX], &[1, 2], 2, Role::Indptr, 4),
            (&[0, 1], &[9], 1, Role::Ids, 0),
            (&[0, 1, 3], &[8, 5, 5], 3, Role::Ids, 2),
            (&[0, 2], &[2, 5], 1, Role::Site, 0),
        ];
        for (indptr, ids, values, role, at) in lies {
            let flaw = parse(9, indptr, ids, values).expect_err("a lie");
            assert_eq!((flaw.role, flaw.at), (role, at), "{}", flaw.text);
        }
    }

    #[test]
    fn some_pointers_are_refused_where_all_are_known_to_lie() {
        let check = |pointers: &[u32], from| check_pointers(pointers, from, 9, 20).map_err(|flaw| flaw.at);
        for (pointers, from) in [(&[0, 20][..], 0), (&[3, 3, 7], 4), (&[19, 20], 8), (&[20, 20], 7), (&[], 3)] {
            assert_eq!(check(pointers, from), Ok(()), "{pointers:?} from {from}");
        }
        for (pointers, from, at) in
            [(&[1, 2][..], 0, 0), (&[3, 2], 4, 20), (&[3, 21], 4, 20), (&[19, 19], 8, 36), (&[20, 21], 8, 36)]
        {
            assert_eq!(check(pointers, from), Err(at), "{pointers:?} from {from}");
        }
    }

    #[test]
    fn rows_of_codes_are_put_behind_each_other() {
        let codes = parse(9, &[0, 2, 2, 3], &[0, 8, 4], 3).expect("honest");
        let mut some = Codes::default();
        some.extend(&codes, [2, 1, 0, 2].into_iter(), 2).expect("few");
        assert_eq!((some.indptr, some.ids, some.values.len()), (vec![0, 1, 1, 3, 4], vec![4, 0, 8, 4], 8));
    }
}
