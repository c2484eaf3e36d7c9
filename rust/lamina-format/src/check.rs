//! Whether a group record can be true: a record with a valid checksum may still come from somebody hostile.

use crate::checksum;
use crate::dtype::ColumnType;
use crate::error::{Error, Result};
use crate::names;
use crate::record::{Block, Group, Role};
use crate::segment::{ALIGN, Declared, MOST_ROWS};

/// Refuses a record whose numbers contradict each other or the declarations: what passes can be read without
/// going out of bounds and without allocating more than its blocks say.
pub fn group(group: &Group, declared: &Declared) -> Result<()> {
    names::check_blob(&group.file)?;
    let wrong = |what: &str| Err(Error::damaged(format!("row group {} {what}", group.number)).in_file(&group.file));
    if group.rows == 0 || group.rows > MOST_ROWS {
        return wrong("has an impossible number of rows");
    }
    if group.first < 0 || group.first.checked_add(group.rows as i64).is_none() {
        return wrong("has impossible row names");
    }
    let Some(end) = group.offset.checked_add(group.length).filter(|_| group.offset.is_multiple_of(ALIGN)) else {
        return wrong("lies at an impossible place");
    };
    let mut last = group.offset;
    for block in &group.blocks {
        let Some(stop) = block.offset.checked_add(block.length).filter(|&stop| block.offset >= last && stop <= end)
        else {
            return wrong("has blocks that overlap or leave it");
        };
        last = stop;
        if block.crcs.len() as u64 != 4 * checksum::count(block.length) {
            return wrong("has a block without checksums");
        }
        if expected(group, block, declared).is_none_or(|length| length != block.length) {
            return wrong("has a block that does not fit its rows");
        }
    }
    Ok(())
}

/// The length that the declarations give a block; None if it is of nothing declared.
fn expected(group: &Group, block: &Block, declared: &Declared) -> Option<u64> {
    if block.role == Role::Site {
        return group.rows.checked_mul(declared.sites.get(&block.id)?.row_bytes());
    }
    let kind = declared.columns.get(&block.id)?.kind;
    match (block.role, kind) {
        (Role::Values, ColumnType::Int | ColumnType::Float) => Some(8 * group.rows),
        (Role::Values, ColumnType::Bool) | (Role::Valid, _) => Some(group.rows),
        (Role::Offsets, ColumnType::Str) => Some(4 * (group.rows + 1)),
        (Role::Bytes, ColumnType::Str) => Some(block.length),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::record::{Op, Site, Table};

    fn example() -> (Declared, Group) {
        let mut declared = Declared::default();
        declared.apply(&Op::Site(Site { id: 0, name: "x".to_owned(), dtype: DType::F32, shape: vec![2] }));
        let block = Block { role: Role::Site, id: 0, offset: 4096, length: 24, crcs: vec![0; 4], non_finite: 0 };
        let group = Group {
            file: "segments/a.safetensors".to_owned(),
            number: 0,
            table: Table::Rows,
            offset: 4096,
            length: 4096,
            first: 0,
            rows: 3,
            blocks: vec![block],
            constants: vec![],
            zones: vec![],
        };
        (declared, group)
    }

    #[test]
    fn what_a_writer_writes_passes_and_every_lie_is_refused() {
        let (declared, honest) = example();
        assert_eq!(group(&honest, &declared), Ok(()));
        let lies: [fn(&mut Group); 13] = [
            |g| g.file = "../run.json".to_owned(),
            |g| g.rows = 0,
            |g| g.rows = 1 << 60,
            |g| g.rows = 4,
            |g| g.first = -1,
            |g| g.first = i64::MAX,
            |g| g.offset = 1,
            |g| g.offset = u64::MAX - 4095,
            |g| g.blocks[0].offset = u64::MAX,
            |g| g.blocks[0].offset = 0,
            |g| g.blocks[0].crcs.clear(),
            |g| g.blocks[0].id = 7,
            |g| g.blocks.push(g.blocks[0].clone()),
        ];
        for (index, lie) in lies.iter().enumerate() {
            let (declared, mut record) = example();
            lie(&mut record);
            assert!(group(&record, &declared).is_err(), "lie {index}");
        }
    }

    #[test]
    fn a_site_too_wide_to_address_is_not_taken_up() {
        let mut declared = Declared::default();
        let shape = vec![1 << 40, 1 << 40];
        declared.apply(&Op::Site(Site { id: 0, name: "x".to_owned(), dtype: DType::F32, shape }));
        assert!(declared.sites.is_empty());
    }
}
