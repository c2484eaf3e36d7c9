//! Tensors that lie in pieces, as the processes of a training hold them.

use crate::record::{LayoutContent, TensorSpec, Whole};
use crate::{Error, Result};

/// What two boxes of one tensor have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// Where it begins in the one.
    pub from: Vec<u64>,
    /// Where it begins in the other.
    pub to: Vec<u64>,
    /// Its lengths.
    pub sizes: Vec<u64>,
}

/// What the box (offsets, sizes) `one` shares with the box `other`; None if that is nothing.
pub fn overlap(one: (&[u64], &[u64]), other: (&[u64], &[u64])) -> Option<Overlap> {
    let mut common = Overlap { from: Vec::new(), to: Vec::new(), sizes: Vec::new() };
    for at in 0..one.0.len() {
        let start = one.0[at].max(other.0[at]);
        let end = (one.0[at] + one.1[at]).min(other.0[at] + other.1[at]);
        if start >= end {
            return None;
        }
        common.from.push(start - one.0[at]);
        common.to.push(start - other.0[at]);
        common.sizes.push(end - start);
    }
    Some(common)
}

impl Whole {
    /// Refuses pieces that cannot fill it. `used` tells of each tensor whether it is a piece already.
    fn check(&self, tensors: &[TensorSpec], used: &mut [bool]) -> Result<()> {
        let wrong = |text: &str| Error::damaged(format!("tensor {:?}: {text}", self.spec.name));
        let bytes = self.spec.bytes().ok_or_else(|| wrong("its shape takes more than 2^64 bytes"))?;
        let mut filled = 0u64;
        for piece in &self.pieces {
            let held = tensors.get(piece.tensor as usize).ok_or_else(|| wrong("a piece of it is not there"))?;
            if std::mem::replace(&mut used[piece.tensor as usize], true) {
                return Err(wrong("a piece of it is used twice"));
            }
            if held.dtype != self.spec.dtype {
                return Err(wrong("a piece of it has another dtype"));
            }
            let lengths = [piece.offsets.len(), held.shape.len()];
            let mut dims = piece.offsets.iter().zip(&held.shape).zip(&self.spec.shape);
            let inside = dims.all(|((&at, &size), &all)| at.checked_add(size).is_some_and(|end| end <= all));
            if lengths != [self.spec.shape.len(); 2] || !inside {
                return Err(wrong("a piece of it does not lie in it"));
            }
            filled = held.bytes().and_then(|size| filled.checked_add(size)).ok_or_else(|| wrong("it overflows"))?;
        }
        if filled == bytes { Ok(()) } else { Err(wrong(&format!("its pieces hold {filled} of {bytes} bytes"))) }
    }
}

impl LayoutContent {
    /// Refuses wholes that their pieces cannot fill. Pieces that overlap are not looked for.
    pub fn check_wholes(&self) -> Result<()> {
        let mut used = vec![false; self.tensors.len()];
        self.wholes.iter().flatten().try_for_each(|whole| whole.check(&self.tensors, &mut used))
    }

    /// How many tensors the state has.
    pub fn count(&self) -> usize {
        self.wholes.as_ref().map_or(self.tensors.len(), Vec::len)
    }

    /// A tensor of the state.
    pub fn spec(&self, index: usize) -> Option<&TensorSpec> {
        match &self.wholes {
            None => self.tensors.get(index),
            Some(wholes) => wholes.get(index).map(|whole| &whole.spec),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;
    use crate::record::Piece;

    fn spec(shape: &[u64]) -> TensorSpec {
        TensorSpec { name: "w".to_owned(), dtype: DType::F32, shape: shape.to_vec() }
    }

    fn layout(shape: &[u64], pieces: &[(u32, &[u64])], held: &[&[u64]]) -> LayoutContent {
        let piece = |&(tensor, offsets): &(u32, &[u64])| Piece { tensor, offsets: offsets.to_vec() };
        let whole = Whole { spec: spec(shape), pieces: pieces.iter().map(piece).collect() };
        let tensors = held.iter().map(|shape| spec(shape)).collect();
        LayoutContent { tree: String::new(), tensors, wholes: Some(vec![whole]) }
    }

    #[test]
    fn pieces_that_fill_a_tensor_are_taken() {
        layout(&[3, 2], &[(1, &[0, 0]), (0, &[2, 0])], &[&[1, 2], &[2, 2]]).check_wholes().expect("rows");
        layout(&[], &[(0, &[])], &[&[]]).check_wholes().expect("one number");
        layout(&[0, 2], &[], &[]).check_wholes().expect("nothing");
    }

    #[test]
    fn pieces_that_cannot_fill_a_tensor_are_refused() {
        let wrong: [(&str, LayoutContent); 7] = [
            ("not there", layout(&[2], &[(1, &[0])], &[&[2]])),
            ("used twice", layout(&[4], &[(0, &[0]), (0, &[2])], &[&[2]])),
            ("does not lie", layout(&[4], &[(0, &[3])], &[&[2]])),
            ("does not lie", layout(&[4], &[(0, &[u64::MAX])], &[&[2]])),
            ("does not lie", layout(&[2, 2], &[(0, &[0])], &[&[2, 2]])),
            ("8 of 16", layout(&[4], &[(0, &[0])], &[&[2]])),
            ("2^64", layout(&[1 << 40, 1 << 40], &[], &[])),
        ];
        for (text, layout) in wrong {
            let error = layout.check_wholes().expect_err(text);
            assert!(error.message.contains(text), "{} for {text}", error.message);
        }
        let mut other = layout(&[2], &[(0, &[0])], &[&[2]]);
        other.tensors[0].dtype = DType::F64;
        assert!(other.check_wholes().is_err());
    }

    #[test]
    fn boxes_overlap_where_they_do_in_every_dimension() {
        let common = overlap((&[1, 0], &[3, 4]), (&[2, 3], &[9, 9])).expect("some");
        assert_eq!(common, Overlap { from: vec![1, 3], to: vec![0, 0], sizes: vec![2, 1] });
        assert_eq!(overlap((&[0, 0], &[2, 2]), (&[0, 2], &[2, 2])), None);
        assert_eq!(overlap((&[0], &[0]), (&[0], &[4])), None);
        assert!(overlap((&[], &[]), (&[], &[])).is_some());
    }
}
