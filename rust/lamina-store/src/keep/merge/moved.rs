//! Row groups on their way into another run: with new row names, and new numbers of sites and columns.

use super::union::Numbers;
use crate::Snapshot;
use crate::keep::plan::Batch;
use crate::keep::rewrite::{Rewritten, rewrite};
use crate::reader::{Mask, StoredGroup};
use crate::writer::group::{Cut, CutBlock, Pieces};
use lamina_format::record::Role;
use lamina_format::{Error, Result};
use std::collections::HashSet;

/// How a run's rows become rows of the new run.
pub struct Move<'a> {
    pub snapshot: &'a Snapshot,
    pub numbers: &'a Numbers,
    /// Added to the names of rows.
    pub shift: i64,
}

impl Move<'_> {
    /// What a group shows: its blocks as they lie there if that is all of it, and otherwise rewritten without what is hidden.
    pub fn cuts(&self, group: &StoredGroup) -> Result<Vec<Rewritten>> {
        // whatever is rewritten below is verified here, however the snapshot is read
        let blocks = self.blocks(group)?;
        let whole = group.record.sites().all(|site| group.hidden.of_site(site) == Mask::None);
        let mut cuts = if whole {
            let record = &group.record;
            let span = record.last.map(|last| (record.first, last));
            let (constants, zones) = (record.constants.clone(), record.zones.clone());
            let cut = Cut { table: record.table, rows: record.rows, span, blocks, constants, zones };
            vec![Rewritten { cut, first: record.first, bytes: record.length }]
        } else {
            drop(blocks);
            let batch = Batch { writer: group.origin.writer(), table: group.record.table, members: vec![group] };
            rewrite(self.snapshot, &batch, &HashSet::new())?
        };
        cuts.iter_mut().try_for_each(|cut| self.rename(cut))?;
        Ok(cuts)
    }

    fn blocks(&self, group: &StoredGroup) -> Result<Vec<CutBlock>> {
        let read = |block: &lamina_format::record::Block| {
            let dtype = block.site().and_then(|id| self.snapshot.site_by_id(id)).map(|site| site.dtype);
            let pieces = block.pieces.as_ref();
            Ok(CutBlock {
                role: block.role,
                id: block.id,
                // they are in order already
                element: 0,
                bytes: self.snapshot.block_of(group, block)?.into(),
                dtype,
                pieces: pieces.map(|lengths| Pieces { lengths: lengths.to_vec(), non_finite: block.non_finite }),
                active: block.active,
            })
        };
        group.record.blocks.iter().map(read).collect()
    }

    fn rename(&self, moved: &mut Rewritten) -> Result<()> {
        let number = |is_site, id: &mut u32| {
            let unknown = || Error::damaged("a row group holds something that is not declared");
            *id = *self.numbers.get(&(is_site, *id)).ok_or_else(unknown)?;
            Ok::<_, Error>(())
        };
        moved.first += self.shift;
        let cut = &mut moved.cut;
        cut.constants.iter_mut().try_for_each(|constant| number(false, &mut constant.id))?;
        cut.zones.retain(|zone| self.numbers.contains_key(&(false, zone.id)));
        cut.zones.iter_mut().try_for_each(|zone| number(false, &mut zone.id))?;
        for block in &mut cut.blocks {
            match block.role {
                Role::Names => self.rename_rows(block.bytes.whole(), cut.span)?,
                role => number(role.is_site(), &mut block.id)?,
            }
        }
        cut.span = cut.span.map(|(least, greatest)| (least + self.shift, greatest + self.shift));
        Ok(())
    }

    fn rename_rows(&self, bytes: &mut [u8], span: Option<(i64, i64)>) -> Result<()> {
        for name in bytes.as_chunks_mut::<8>().0 {
            let old = i64::from_le_bytes(*name);
            if span.is_none_or(|(least, greatest)| old < least || old > greatest) {
                return Err(Error::damaged("a row's name is not what its group says"));
            }
            *name = (old + self.shift).to_le_bytes();
        }
        Ok(())
    }
}
