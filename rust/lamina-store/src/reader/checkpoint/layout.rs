//! What is alike in every save of a part.

use lamina_format::chunk;
use lamina_format::record::{LayoutContent, TensorSpec, Whole};
use lamina_format::{Error, Result, cbor};
use std::ops::Range;

/// A layout: saves share it, and who loads a part asks for it tensor by tensor.
pub struct Layout {
    /// As it stands in the log.
    pub bytes: Vec<u8>,
    content: Result<LayoutContent>,
    /// The number of each tensor's first chunk in a save, and behind the last how many there are.
    firsts: Vec<u64>,
    /// Of tensors in pieces: what they are when put together, and of which of them each tensor of `content` is a piece.
    pieces: Option<(Vec<TensorSpec>, Vec<u32>)>,
    /// Tensors that have a chunk. A save names all of its chunks, but a tensor without one costs it nothing: a few
    /// megabytes of records can speak of more of them than any list could hold.
    filled: Vec<u32>,
}

impl Layout {
    pub fn read(bytes: Vec<u8>) -> Self {
        let content: Result<LayoutContent> = cbor::decode(&bytes, "a layout");
        let mut content = content.and_then(|content| content.check_wholes().map(|()| content));
        let (mut firsts, mut filled, mut next) = (vec![0], Vec::new(), Some(0u64));
        for (at, spec) in content.iter().flat_map(|content| content.tensors.iter().enumerate()) {
            let chunks = spec.bytes().map(chunk::count);
            if chunks.is_some_and(|chunks| chunks > 0) {
                filled.push(at as u32);
            }
            next = next.and_then(|next| next.checked_add(chunks?));
            firsts.extend(next);
        }
        if next.is_none() {
            content = Err(Error::damaged("a layout has tensors of an impossible size"));
        }
        let pieces = content.as_ref().ok().and_then(|content| {
            let wholes = content.wholes.as_ref()?;
            let mut owners = vec![u32::MAX; content.tensors.len()];
            for (at, whole) in wholes.iter().enumerate() {
                whole.pieces.iter().for_each(|piece| owners[piece.tensor as usize] = at as u32);
            }
            Some((wholes.iter().map(|whole| whole.spec.clone()).collect(), owners))
        });
        Self { bytes, content, firsts, pieces, filled }
    }

    /// How many chunks its tensors have; an error if it cannot be read.
    pub fn chunks(&self) -> Result<u64> {
        self.content.as_ref().map(|_| self.firsts.last().copied().unwrap_or(0)).map_err(Error::clone)
    }

    /// The nested state, with numbers in place of tensors and scalars.
    pub fn tree(&self) -> &str {
        self.content.as_ref().map_or("", |content| &content.tree)
    }

    /// The tensors of the state.
    pub fn specs(&self) -> &[TensorSpec] {
        self.pieces.as_ref().map_or_else(|| self.tensors(), |(specs, _)| specs)
    }

    /// How a tensor of the state lies in pieces; None if it lies as it is.
    pub fn whole(&self, at: usize) -> Option<&Whole> {
        self.content.as_ref().ok()?.wholes.as_ref()?.get(at)
    }

    /// The tensor of the state that a stored one is, or is a piece of; None for a piece of none.
    pub fn owner(&self, tensor: usize) -> Option<usize> {
        let Some((specs, owners)) = &self.pieces else { return Some(tensor) };
        owners.get(tensor).map(|&owner| owner as usize).filter(|&owner| owner < specs.len())
    }

    /// The tensors that are stored.
    pub fn tensors(&self) -> &[TensorSpec] {
        self.content.as_ref().map_or(&[], |content| &content.tensors)
    }

    /// Where the keys of a tensor's chunks stand in a save.
    pub fn chunks_of(&self, tensor: usize) -> Range<usize> {
        match self.firsts.get(tensor..tensor + 2) {
            Some(&[first, end]) => first as usize..end as usize,
            _ => 0..0,
        }
    }

    /// The tensors that have chunks, with their numbers.
    pub fn filled(&self) -> impl Iterator<Item = (usize, &TensorSpec)> {
        self.filled.iter().map(|&at| (at as usize, &self.tensors()[at as usize]))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use lamina_format::DType;

    fn layout(shapes: &[&[u64]]) -> Layout {
        let spec = |shape: &&[u64]| TensorSpec { name: "x".to_owned(), dtype: DType::U8, shape: shape.to_vec() };
        let tensors = shapes.iter().map(spec).collect();
        Layout::read(cbor::encode(&LayoutContent { tree: "{}".to_owned(), tensors, wholes: None }))
    }

    #[test]
    fn tensors_find_their_chunks() {
        let layout = layout(&[&[1], &[0, 7], &[2, 1 << 20], &[]]);
        assert_eq!(layout.chunks(), Ok(4));
        assert_eq!([0, 1, 2, 3, 4].map(|at| layout.chunks_of(at)), [0..1, 1..1, 1..3, 3..4, 0..0]);
        assert_eq!(layout.filled().map(|(at, _)| at).collect::<Vec<_>>(), [0, 2, 3]);
    }

    #[test]
    fn sizes_that_overflow_are_damage() {
        assert!(layout(&[&[1 << 40, 1 << 40]]).chunks().is_err());
        assert!(Layout::read(vec![1, 2, 3]).chunks().is_err());
    }
}
