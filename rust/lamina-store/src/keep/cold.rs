//! The cold form: rows of a site as coded pieces, for what is kept long and read in order.

use crate::writer::group::{Cut, Pieces};
use lamina_format::Result;
use lamina_format::checksum::PIECE;
use lamina_format::codec::Planes;
use lamina_format::record::Role;
use std::collections::HashSet;

/// Codes the blocks of these sites. Rows that do not shrink are coded too: they grow by a table of a few bytes a piece,
/// and nobody tries them again.
pub fn chill(cut: &mut Cut, sites: &HashSet<u32>, planes: &mut Planes) -> Result<()> {
    for block in
        cut.blocks.iter_mut().filter(|block| matches!(block.role, Role::Site | Role::Ids) && sites.contains(&block.id))
    {
        let Some(dtype) = block.dtype else { continue };
        let (mut lengths, mut coded) = (Vec::new(), Vec::new());
        let bytes = block.bytes.whole();
        for piece in bytes.chunks(PIECE) {
            let stored = planes.encode(dtype, piece)?;
            lengths.extend((stored.len() as u32).to_le_bytes());
            coded.extend(stored);
        }
        block.pieces = Some(Pieces { lengths, non_finite: dtype.count_non_finite(bytes) });
        block.bytes = coded.into();
        block.element = 1;
    }
    // in falling order of their elements, as before: coded rows are bytes
    cut.blocks.sort_by_key(|block| std::cmp::Reverse(block.element));
    Ok(())
}
