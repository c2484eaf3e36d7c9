//! Bytes of rows while they wait for the disk: copied into staging, or lent by the caller until they are written.

use std::ops::Range;
use std::sync::Arc;

/// Memory that a caller lends: its bytes do not change as long as anybody holds it.
pub type Lent = Arc<dyn AsRef<[u8]> + Send + Sync>;

enum Part {
    Copied(Vec<u8>),
    Lent(Lent, Range<usize>),
}

impl Part {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Copied(bytes) => bytes,
            Self::Lent(memory, range) => &memory.as_ref().as_ref()[range.clone()],
        }
    }
}

/// Rows in the order in which they came.
#[derive(Default)]
pub struct Rows {
    parts: Vec<Part>,
    length: usize,
}

impl From<Vec<u8>> for Rows {
    fn from(bytes: Vec<u8>) -> Self {
        let length = bytes.len();
        Self { parts: vec![Part::Copied(bytes)], length }
    }
}

impl Rows {
    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Copies bytes behind the others, into a buffer from `take` if what comes last is lent.
    pub fn copy(&mut self, bytes: &[u8], take: impl FnOnce() -> Vec<u8>) {
        self.length += bytes.len();
        if let Some(Part::Copied(last)) = self.parts.last_mut() {
            last.extend_from_slice(bytes);
            return;
        }
        let mut buffer = take();
        buffer.extend_from_slice(bytes);
        self.parts.push(Part::Copied(buffer));
    }

    /// Puts a part of lent memory behind the others.
    pub fn lend(&mut self, memory: &Lent, range: Range<usize>) {
        self.length += range.len();
        self.parts.push(Part::Lent(Arc::clone(memory), range));
    }

    /// The `length` bytes from `start`, in pieces as they lie in memory.
    pub fn slices(&self, start: usize, length: usize) -> impl Iterator<Item = &[u8]> {
        let (mut skip, mut left) = (start, length);
        self.parts.iter().filter_map(move |part| {
            let bytes = part.bytes();
            let from = skip.min(bytes.len());
            let to = bytes.len().min(from + left);
            (skip, left) = (skip - from, left - (to - from));
            (from < to).then(|| &bytes[from..to])
        })
    }

    /// All bytes as one piece; copies what is lent.
    pub fn whole(&mut self) -> &mut Vec<u8> {
        if !matches!(self.parts[..], [Part::Copied(_)]) {
            let bytes: Vec<u8> = self.parts.iter().flat_map(|part| part.bytes().iter().copied()).collect();
            self.parts = vec![Part::Copied(bytes)];
        }
        match &mut self.parts[0] {
            Part::Copied(bytes) => bytes,
            Part::Lent(..) => unreachable!("it was just copied"),
        }
    }

    /// The staging buffers; lent memory is let go of.
    pub fn into_buffers(self) -> impl Iterator<Item = Vec<u8>> {
        self.parts.into_iter().filter_map(|part| match part {
            Part::Copied(bytes) => Some(bytes),
            Part::Lent(..) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> (Rows, Lent) {
        let lent: Lent = Arc::new((10..20).collect::<Vec<u8>>());
        let mut rows = Rows::default();
        rows.copy(&[0, 1, 2], Vec::new);
        rows.lend(&lent, 0..4);
        rows.lend(&lent, 4..4);
        rows.lend(&lent, 7..10);
        rows.copy(&[3], Vec::new);
        rows.copy(&[4, 5], || unreachable!("there is a buffer"));
        (rows, lent)
    }

    #[test]
    fn slices_are_what_was_put_in_from_anywhere_to_anywhere() {
        let (mut rows, _lent) = rows();
        let all = [0, 1, 2, 10, 11, 12, 13, 17, 18, 19, 3, 4, 5];
        assert_eq!(rows.len(), all.len());
        for start in 0..=all.len() {
            for end in start..=all.len() {
                let found: Vec<u8> = rows.slices(start, end - start).flatten().copied().collect();
                assert_eq!(found, all[start..end], "{start}..{end}");
                assert!(rows.slices(start, end - start).all(|slice| !slice.is_empty()));
            }
        }
        assert_eq!(*rows.whole(), all);
        assert_eq!(rows.slices(0, all.len()).count(), 1);
    }

    #[test]
    fn lent_memory_is_let_go_of_with_the_rows() {
        let (rows, lent) = rows();
        assert_eq!(Arc::strong_count(&lent), 4);
        assert_eq!(rows.into_buffers().collect::<Vec<_>>(), [vec![0, 1, 2], vec![3, 4, 5]]);
        assert_eq!(Arc::strong_count(&lent), 1);
    }
}
