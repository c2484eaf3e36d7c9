//! Putting tensors together of pieces, or boxes of them.

use lamina_format::record::{TensorSpec, Whole};
use lamina_format::whole::{Overlap, overlap};
use lamina_format::{Error, Result};

/// Bytes of a piece that are held at one time, if rows are not longer.
const SLAB: u64 = 8 << 20;

/// Fills a buffer from some byte of a piece on.
type Read<'a> = dyn FnMut(usize, u64, &mut [u8]) -> Result<()> + 'a;

/// A box of a tensor: where it begins, and its lengths.
#[derive(Clone, Copy, Debug)]
pub struct Region<'a> {
    /// In each dimension.
    pub offsets: &'a [u64],
    /// Likewise.
    pub sizes: &'a [u64],
}

impl Region<'_> {
    /// Its bytes, if it lies in the tensor.
    pub fn bytes(&self, spec: &TensorSpec) -> Result<u64> {
        let mut dims = self.offsets.iter().zip(self.sizes).zip(&spec.shape);
        let inside = dims.all(|((&at, &size), &all)| at.checked_add(size).is_some_and(|end| end <= all));
        let bytes = self.sizes.iter().try_fold(spec.dtype.size(), |bytes, &size| bytes.checked_mul(size));
        match bytes {
            Some(bytes) if inside && [self.offsets.len(), self.sizes.len()] == [spec.shape.len(); 2] => Ok(bytes),
            _ => {
                let (from, sizes, shape) = (self.offsets, self.sizes, &spec.shape);
                let text = format!("tensor {:?} of shape {shape:?} has no box of {sizes:?} at {from:?}", spec.name);
                Err(Error::schema(text))
            }
        }
    }
}

/// Bytes of all entries of a tensor that share their place in the first dimension.
pub fn row_bytes(spec: &TensorSpec) -> u64 {
    spec.shape.iter().skip(1).product::<u64>() * spec.dtype.size()
}

/// Bytes of a tensor that a piece of it holds, one behind the other.
pub struct Run {
    /// The first.
    pub start: u64,
    /// The one behind the last.
    pub end: u64,
    /// The piece.
    pub tensor: usize,
}

/// The pieces of a tensor in order, if all of them hold whole rows.
pub fn runs(whole: &Whole, tensors: &[TensorSpec]) -> Option<Vec<Run>> {
    let mut runs = Vec::with_capacity(whole.pieces.len());
    for piece in &whole.pieces {
        let held = &tensors[piece.tensor as usize];
        if held.shape.get(1..) != whole.spec.shape.get(1..) {
            return None;
        }
        let length = held.bytes().filter(|&length| length > 0);
        runs.extend(length.map(|length| {
            let start = piece.offsets.first().map_or(0, |first| first * row_bytes(held));
            Run { start, end: start + length, tensor: piece.tensor as usize }
        }));
    }
    runs.sort_by_key(|run| run.start);
    Some(runs)
}

/// Fills `out` with a box of a tensor. What no piece holds, of a
/// damaged record, is zero.
pub fn fill(
    whole: &Whole,
    tensors: &[TensorSpec],
    region: Region<'_>,
    out: &mut [u8],
    read: &mut Read<'_>,
) -> Result<()> {
    if region.bytes(&whole.spec)? != out.len() as u64 {
        return Err(Error::schema(format!("tensor {:?} does not fit {} bytes", whole.spec.name, out.len())));
    }
    if whole.pieces.len() > 1 {
        out.fill(0);
    }
    let item = whole.spec.dtype.size();
    for piece in &whole.pieces {
        let held = &tensors[piece.tensor as usize].shape;
        if let Some(common) = overlap((&piece.offsets, held), (region.offsets, region.sizes)) {
            let mut read = |start: u64, bytes: &mut [u8]| read(piece.tensor as usize, start, bytes);
            copy(&common, held, region.sizes, item, out, &mut read)?;
        }
    }
    Ok(())
}

/// Copies what a piece of these lengths has in common with a box of those.
fn copy(
    common: &Overlap,
    held: &[u64],
    wanted: &[u64],
    item: u64,
    out: &mut [u8],
    read: &mut dyn FnMut(u64, &mut [u8]) -> Result<()>,
) -> Result<()> {
    let inner = |lengths: &[u64]| lengths.iter().skip(1).product::<u64>();
    let rows = common.sizes.first().copied().unwrap_or(1);
    let (from, to) = (common.from.first().copied().unwrap_or(0), common.to.first().copied().unwrap_or(0));
    let (held_row, wanted_row) = (inner(held) * item, inner(wanted) * item);
    let alike = |lengths: &[u64]| lengths.get(1..) == common.sizes.get(1..);
    if alike(held) && alike(wanted) {
        // whole rows of both follow each other
        let (start, length) = ((to * wanted_row) as usize, (rows * wanted_row) as usize);
        return read(from * held_row, &mut out[start..start + length]);
    }
    let slab = (SLAB / held_row.max(1)).clamp(1, rows);
    let mut bytes = vec![0; (slab * held_row) as usize];
    for first in (0..rows).step_by(slab as usize) {
        let count = slab.min(rows - first);
        let bytes = &mut bytes[..(count * held_row) as usize];
        read((from + first) * held_row, bytes)?;
        for row in 0..count {
            let source = &bytes[(row * held_row) as usize..((row + 1) * held_row) as usize];
            let target = ((to + first + row) * wanted_row) as usize;
            let target = &mut out[target..target + wanted_row as usize];
            let (from, to) = (common.from.get(1..).unwrap_or(&[]), common.to.get(1..).unwrap_or(&[]));
            let sizes = common.sizes.get(1..).unwrap_or(&[]);
            scatter(source, &held[1..], from, target, &wanted[1..], to, sizes, item as usize);
        }
    }
    Ok(())
}

/// Copies a box from an array of the lengths `held` into one of the lengths `wanted`.
#[expect(clippy::too_many_arguments, reason = "two arrays, a place in each, and what is copied")]
fn scatter(
    source: &[u8],
    held: &[u64],
    from: &[u64],
    target: &mut [u8],
    wanted: &[u64],
    to: &[u64],
    sizes: &[u64],
    item: usize,
) {
    let inner = |lengths: &[u64]| lengths.iter().skip(1).product::<u64>() as usize * item;
    let (Some(&from_first), Some(&to_first), Some(&count)) = (from.first(), to.first(), sizes.first()) else {
        target[..item].copy_from_slice(&source[..item]);
        return;
    };
    let (held_row, wanted_row) = (inner(held), inner(wanted));
    let (from_at, to_at) = (from_first as usize * held_row, to_first as usize * wanted_row);
    if held[1..] == sizes[1..] && wanted[1..] == sizes[1..] {
        let length = count as usize * held_row;
        target[to_at..to_at + length].copy_from_slice(&source[from_at..from_at + length]);
        return;
    }
    for row in 0..count as usize {
        let source = &source[from_at + row * held_row..from_at + (row + 1) * held_row];
        let target = &mut target[to_at + row * wanted_row..to_at + (row + 1) * wanted_row];
        scatter(source, &held[1..], &from[1..], target, &wanted[1..], &to[1..], &sizes[1..], item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lamina_format::DType;
    use lamina_format::record::Piece;

    fn spec(shape: &[u64]) -> TensorSpec {
        TensorSpec { name: "w".to_owned(), dtype: DType::U16, shape: shape.to_vec() }
    }

    /// Every element of a tensor is its own number; so is what a piece of it holds.
    fn element(shape: &[u64], at: &[u64]) -> u16 {
        shape.iter().zip(at).fold(0, |number, (&length, &at)| number * length as u16 + at as u16)
    }

    fn numbers(shape: &[u64], offsets: &[u64], sizes: &[u64]) -> Vec<u8> {
        let mut places = vec![Vec::new()];
        for (&offset, &size) in offsets.iter().zip(sizes) {
            let more = |place: Vec<u64>| (0..size).map(move |at| [place.as_slice(), &[offset + at]].concat());
            places = places.into_iter().flat_map(more).collect();
        }
        places.iter().flat_map(|place| element(shape, place).to_le_bytes()).collect()
    }

    #[test]
    fn every_box_of_a_tensor_comes_out_of_pieces_of_every_kind() {
        let shape = [5, 4, 3];
        // rows, columns, blocks of both, one
        let cuts: [&[([u64; 3], [u64; 3])]; 4] = [
            &[([0, 0, 0], [2, 4, 3]), ([2, 0, 0], [3, 4, 3])],
            &[([0, 0, 2], [5, 4, 1]), ([0, 0, 0], [5, 4, 2])],
            &[([0, 0, 0], [3, 1, 3]), ([0, 1, 0], [3, 3, 3]), ([3, 0, 0], [2, 4, 1]), ([3, 0, 1], [2, 4, 2])],
            &[([0, 0, 0], [5, 4, 3])],
        ];
        for cut in cuts {
            let tensors: Vec<TensorSpec> = cut.iter().map(|(_, sizes)| spec(sizes)).collect();
            let piece =
                |(at, (offsets, _)): (usize, &([u64; 3], _))| Piece { tensor: at as u32, offsets: offsets.to_vec() };
            let whole = Whole { spec: spec(&shape), pieces: cut.iter().enumerate().map(piece).collect() };
            let held: Vec<Vec<u8>> = cut.iter().map(|(offsets, sizes)| numbers(&shape, offsets, sizes)).collect();
            let mut read = |piece: usize, start: u64, bytes: &mut [u8]| {
                bytes.copy_from_slice(&held[piece][start as usize..start as usize + bytes.len()]);
                Ok(())
            };
            for at in 0..60u64 {
                let offsets = [at / 12, at / 3 % 4, at % 3];
                for end in 0..60u64 {
                    let ends = [end / 12 + 1, end / 3 % 4 + 1, end % 3 + 1];
                    if (0..3).any(|dim| ends[dim] <= offsets[dim]) {
                        continue;
                    }
                    let sizes = [0, 1, 2].map(|dim| ends[dim] - offsets[dim]);
                    let mut out = vec![0xEE; (sizes.iter().product::<u64>() * 2) as usize];
                    let region = Region { offsets: &offsets, sizes: &sizes };
                    fill(&whole, &tensors, region, &mut out, &mut read).expect("a box");
                    assert_eq!(out, numbers(&shape, &offsets, &sizes), "{cut:?} {region:?}");
                }
            }
        }
    }

    #[test]
    fn a_box_that_a_tensor_does_not_have_is_refused() {
        let offsets: [&[u64]; 3] = [&[1], &[u64::MAX], &[0, 0]];
        for offsets in offsets {
            let sizes = vec![4; offsets.len()];
            assert!(Region { offsets, sizes: &sizes }.bytes(&spec(&[4])).is_err(), "{offsets:?}");
        }
        assert_eq!(Region { offsets: &[], sizes: &[] }.bytes(&spec(&[])), Ok(2));
    }
}
