//! What of a block needs no check any more.

use lamina_format::checksum::PIECE;
use lamina_format::record::Block;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Which pieces of a block were found good.
pub struct Verified {
    /// A bit each.
    good: Box<[AtomicU64]>,
    /// How many were not.
    left: AtomicUsize,
}

impl Verified {
    pub fn new(block: &Block) -> Self {
        let pieces = block.crcs.len() / 4;
        let good = (0..pieces.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        // pieces without a checksum are never found good
        let left = AtomicUsize::new(pieces.max((block.length as usize).div_ceil(PIECE)));
        Self { good, left }
    }

    /// Whether a piece was.
    pub fn has(&self, piece: usize) -> bool {
        self.good[piece / 64].load(Ordering::Relaxed) >> (piece % 64) & 1 == 1
    }

    /// Whether all of them were.
    pub fn has_all(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }

    /// A piece was found good.
    pub fn set(&self, piece: usize) {
        let bit = 1 << (piece % 64);
        if self.good[piece / 64].fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            self.left.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lamina_format::record::Role;

    fn verified(length: usize, pieces: usize) -> Verified {
        let (length, crcs) = (length as u64, vec![0; 4 * pieces]);
        Verified::new(&Block {
            role: Role::Site,
            id: 0,
            offset: 0,
            length,
            crcs,
            non_finite: 0,
            pieces: None,
            active: None,
        })
    }

    #[test]
    fn all_are_good_when_each_was_once() {
        for pieces in [1, 2, 64, 65, 130] {
            let verified = verified(pieces * PIECE - 1, pieces);
            for piece in (0..pieces).rev() {
                assert!(!verified.has_all() && !verified.has(piece));
                (0..3).for_each(|_| verified.set(piece));
                assert!(verified.has(piece));
            }
            assert!(verified.has_all());
        }
    }

    #[test]
    fn what_has_no_checksum_is_never_good() {
        let verified = verified(3 * PIECE, 2);
        (0..2).for_each(|piece| verified.set(piece));
        assert!(!verified.has_all());
    }

    #[test]
    fn several_threads_count_a_piece_once() {
        let verified = verified(1000 * PIECE, 1000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..999).for_each(|piece| verified.set(piece)));
            }
        });
        assert!(!verified.has_all());
        verified.set(999);
        assert!(verified.has_all());
    }
}
