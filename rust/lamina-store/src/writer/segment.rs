//! The segment that a writer is filling.

use super::group::Cut;
use crate::storage::{Blob, Storage};
use lamina_format::record::{Block, Group, Op, Seal};
use lamina_format::segment::{self, Declared, LARGEST_RESERVE, MOST_TENSORS, RESERVE};
use lamina_format::{Error, Result, names};

/// Bytes at which a segment is sealed.
const LONGEST: u64 = 1 << 30;

struct Current {
    blob: Box<dyn Blob>,
    file: String,
    reserve: u64,
    end: u64,
    groups: Vec<Group>,
    header: u64,
    tensors: usize,
    synced: bool,
}

/// Writes groups into segments, one after another.
pub struct SegmentWriter {
    ordinal: u32,
    next_segment: u32,
    next_row: i64,
    current: Option<Current>,
}

impl SegmentWriter {
    pub fn new(ordinal: u32) -> Self {
        Self { ordinal, next_segment: 0, next_row: i64::from(ordinal) << 40, current: None }
    }

    /// Writes a group and returns what must stand in the log, with the emptied buffers.
    pub fn write(&mut self, storage: &dyn Storage, declared: &Declared, cut: Cut) -> Result<(Vec<Op>, Vec<Vec<u8>>)> {
        let (first, own) = (self.next_row, if cut.span.is_none() { cut.rows as i64 } else { 0 });
        let written = self.place(storage, declared, cut, first)?;
        self.next_row += own;
        Ok(written)
    }

    /// Writes a group whose first row has the name `first`, unless it has a block of names.
    pub fn place(
        &mut self,
        storage: &dyn Storage,
        declared: &Declared,
        cut: Cut,
        first: i64,
    ) -> Result<(Vec<Op>, Vec<Vec<u8>>)> {
        let mut group = Group {
            file: String::new(),
            number: 0,
            table: cut.table,
            offset: 0,
            length: 0,
            first: cut.span.map_or(first, |(least, _)| least),
            rows: cut.rows,
            blocks: Vec::new(),
            constants: cut.constants,
            zones: cut.zones,
            last: cut.span.map(|(_, greatest)| greatest),
        };
        for block in &cut.blocks {
            let (offset, length) = (group.length, block.bytes.len() as u64);
            group.length += length;
            group.blocks.push(Block {
                role: block.role,
                id: block.id,
                offset,
                length,
                crcs: vec![],
                non_finite: 0,
                pieces: None,
                active: block.active,
            });
        }
        group.length = segment::aligned(group.length);
        let (header, tensors) = segment::header_cost(declared, &group)?;
        let mut ops = Vec::new();
        let full = |current: &Current| {
            current.end + group.length > LONGEST
                || current.header + header > current.reserve
                || current.tensors + tensors > MOST_TENSORS
        };
        if self.current.as_ref().is_some_and(full) {
            ops.extend(self.seal(declared)?);
        }
        let current = match &mut self.current {
            Some(current) => current,
            none => none.insert(Self::start(storage, self.ordinal, self.next_segment, header)?),
        };
        group.file = current.file.clone();
        group.number = current.groups.len() as u32;
        group.offset = current.end;
        let mut written = current.end;
        for (record, block) in group.blocks.iter_mut().zip(&cut.blocks) {
            record.offset += group.offset;
            // pass by pass for a piece at a time, so that the cache holds it
            let mut at = record.offset;
            if let Some(pieces) = &block.pieces {
                record.pieces = Some(pieces.lengths.clone().into());
                record.non_finite = pieces.non_finite;
            }
            for (start, length) in record.spans() {
                let mut crc = 0;
                for piece in block.bytes.slices(start as usize, length as usize) {
                    crc = crc32c::crc32c_append(crc, piece);
                    if block.pieces.is_none() {
                        record.non_finite += block.dtype.map_or(0, |dtype| dtype.count_non_finite(piece));
                    }
                    current.blob.write(at, piece)?;
                    at += piece.len() as u64;
                }
                record.crcs.extend(crc.to_le_bytes());
            }
            written = at;
        }
        let gap = current.end + group.length - written;
        current.blob.write(written, &vec![0; gap as usize])?;
        current.end += group.length;
        current.header += header;
        current.tensors += tensors;
        current.synced = false;
        current.groups.push(group.clone());
        ops.push(Op::Group(group));
        Ok((ops, cut.blocks.into_iter().flat_map(|block| block.bytes.into_buffers()).collect()))
    }

    fn start(storage: &dyn Storage, ordinal: u32, seq: u32, header: u64) -> Result<Current> {
        // a megabyte unless the first group alone nearly fills it
        let reserve = RESERVE.max((16 * header).next_multiple_of(RESERVE)).min(LARGEST_RESERVE);
        if header + 4096 > reserve {
            return Err(Error::schema("a row group has too many sites and columns for one file")
                .hint("record fewer sites in one append"));
        }
        let file = names::segment(ordinal, seq);
        let blob = storage.create_blob(&file)?;
        Ok(Current { blob, file, reserve, end: reserve, groups: vec![], header: 1024, tensors: 2, synced: true })
    }

    /// Hands what was written to the operating system.
    pub fn flush(&mut self) -> Result<()> {
        self.current.as_mut().map_or(Ok(()), |current| current.blob.flush())
    }

    /// Makes what was written durable.
    pub fn sync(&mut self) -> Result<()> {
        if let Some(current) = self.current.as_mut().filter(|current| !current.synced) {
            current.blob.sync()?;
            current.synced = true;
        }
        Ok(())
    }

    /// Turns the current segment into a safetensors file, durably.
    pub fn seal(&mut self, declared: &Declared) -> Result<Option<Op>> {
        let Some(mut current) = self.current.take() else { return Ok(None) };
        self.next_segment += 1;
        let sealed = segment::seal(declared, &current.groups, current.reserve)?;
        let length = sealed.table_offset + sealed.table.len() as u64;
        current.blob.write(sealed.table_offset, &sealed.table)?;
        current.blob.write(0, &sealed.header)?;
        current.blob.finish(length)?;
        Ok(Some(Op::Seal(Seal { file: current.file, length, root: sealed.root })))
    }
}
