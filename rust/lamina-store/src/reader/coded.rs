//! Reading rows that lie in the file as coded pieces.

use super::block::BlockReader;
use lamina_format::checksum::PIECE;
use lamina_format::codec::Planes;
use lamina_format::record::{Block, Role, Site};
use lamina_format::{DType, Result};

/// How the pieces of a block are coded, and where each lies.
pub struct Coding {
    dtype: DType,
    /// Bytes of the rows.
    raw: usize,
    /// Where each piece begins in the block, and behind the last where the block ends.
    starts: Vec<u64>,
}

impl Coding {
    /// That of a site's block in a group of `rows` rows; None if it lies there as it is.
    pub fn of(block: &Block, site: &Site, rows: u64) -> Option<Self> {
        block.pieces.as_ref()?;
        let dtype = if block.role == Role::Ids { site.id_dtype() } else { site.dtype };
        let raw = block.active.map_or(rows * site.row_bytes(), |active| active * dtype.size());
        let mut starts: Vec<u64> = block.spans().into_iter().map(|(start, _)| start).collect();
        starts.push(block.length);
        Some(Self { dtype, raw: raw as usize, starts })
    }

    /// Bytes of the rows.
    pub fn raw(&self) -> usize {
        self.raw
    }
}

/// What is kept from read to read.
#[derive(Default)]
pub struct Scratch {
    /// A piece of which only a part was wanted.
    pub piece: Vec<u8>,
    /// Which decoded piece of which block that is, if it may be used again.
    held: Option<(usize, usize)>,
    stored: Vec<u8>,
    planes: Option<Planes>,
}

impl Scratch {
    /// The piece's memory, for other bytes.
    pub fn other(&mut self, length: usize) -> &mut Vec<u8> {
        self.held = None;
        self.piece.resize(length, 0);
        &mut self.piece
    }
}

impl BlockReader<'_> {
    /// Fills `out` from byte `start` of the rows.
    pub(super) fn read_coded(
        &self,
        coding: &Coding,
        start: usize,
        out: &mut [u8],
        scratch: &mut Scratch,
    ) -> Result<()> {
        let (mut at, end) = (start, start + out.len());
        while at < end {
            let number = at / PIECE;
            let (first, stop) = (number * PIECE, coding.raw.min((number + 1) * PIECE));
            let to = end.min(stop);
            let wanted = &mut out[at - start..to - start];
            if at == first && to == stop {
                self.decode(coding, number, wanted, scratch)?;
            } else {
                let key = (std::ptr::from_ref(self.block) as usize, number);
                if scratch.held != Some(key) {
                    let mut piece = std::mem::take(scratch.other(stop - first));
                    self.decode(coding, number, &mut piece, scratch)?;
                    scratch.piece = piece;
                    scratch.held = Some(key);
                }
                wanted.copy_from_slice(&scratch.piece[at - first..to - first]);
            }
            at = to;
        }
        Ok(())
    }

    /// A whole piece.
    fn decode(&self, coding: &Coding, number: usize, out: &mut [u8], scratch: &mut Scratch) -> Result<()> {
        let (from, to) = (coding.starts[number], coding.starts[number + 1]);
        scratch.stored.resize((to - from) as usize, 0);
        self.fetch(from as usize, &mut scratch.stored)?;
        self.check_piece(number, from, &scratch.stored)?;
        let planes = scratch.planes.get_or_insert_default();
        planes.decode(coding.dtype, &scratch.stored, out).map_err(|error| self.damaged(&error.message, from))
    }
}
