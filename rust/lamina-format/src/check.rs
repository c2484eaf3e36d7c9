//! Whether a group record can be true: a record with a valid checksum may still come from somebody hostile.

use crate::checksum;
use crate::dtype::ColumnType;
use crate::error::{Error, Result};
use crate::names;
use crate::record::{Block, Group, Role, Site, Table};
use crate::segment::{ALIGN, Declared, MOST_ACTIVE, MOST_ROWS};
use std::collections::HashSet;

/// Refuses a record whose numbers contradict each other or the declarations: what passes can be read without
/// going out of bounds and without allocating more than its blocks say.
pub fn group(group: &Group, declared: &Declared) -> Result<()> {
    names::check_blob(&group.file)?;
    let wrong = |what: &str| Err(Error::damaged(format!("row group {} {what}", group.number)).in_file(&group.file));
    if group.rows == 0 || group.rows > MOST_ROWS {
        return wrong("has an impossible number of rows");
    }
    let (first, last) = group.span();
    if first < 0 || last < first || ((last - first) as u64) < group.rows - 1 || last == i64::MAX {
        return wrong("has impossible row names");
    }
    let named = group.blocks.iter().any(|block| block.role == Role::Names && block.id == 0);
    if named != group.last.is_some() || group.table == Table::Attached && !named {
        return wrong("lacks the names of its rows, or has names that it must not have");
    }
    let Some(end) = group.offset.checked_add(group.length).filter(|_| group.offset.is_multiple_of(ALIGN)) else {
        return wrong("lies at an impossible place");
    };
    let (mut last, mut seen) = (group.offset, HashSet::new());
    for block in &group.blocks {
        let Some(stop) = block.offset.checked_add(block.length).filter(|&stop| block.offset >= last && stop <= end)
        else {
            return wrong("has blocks that overlap or leave it");
        };
        last = stop;
        if !seen.insert((block.role, block.id)) {
            return wrong("has a block twice");
        }
        let size = declared.sites.get(&block.id).map_or(1, |site| match block.role {
            Role::Ids => site.id_dtype().size(),
            _ => site.dtype.size(),
        });
        let Some(raw) = expected(group, block, declared).filter(|&raw| fits(block, raw, size)) else {
            return wrong("has a block that does not fit its rows");
        };
        if block.crcs.len() as u64 != 4 * checksum::count(raw) {
            return wrong("has a block without checksums");
        }
        if block.non_finite > if block.role == Role::Site { raw / size } else { 0 } {
            return wrong("counts more elements than it has");
        }
    }
    if (last - group.offset).checked_next_multiple_of(ALIGN) != Some(group.length) {
        return wrong("has a length that does not fit its blocks");
    }
    let sites = group.blocks.iter().filter(|block| block.role == Role::Site).count();
    if !codes_are_whole(group, declared) {
        return wrong("has sparse codes without a block, or blocks of codes that disagree");
    }
    if (group.table != Table::Examples) != (sites > 0) {
        return wrong("has sites where it must not, or none where it must");
    }
    let mut columns = HashSet::new();
    for constant in &group.constants {
        let kind = declared.columns.get(&constant.id).filter(|column| column.table == group.table).map(|c| c.kind);
        let fits = kind.is_some_and(|kind| constant.value.fits(kind));
        let block = group.blocks.iter().any(|block| block.column() == Some(constant.id));
        if !fits || block || !columns.insert(constant.id) {
            return wrong("has a constant that does not fit its column");
        }
    }
    if group.zones.iter().any(|zone| !declared.columns.contains_key(&zone.id)) {
        return wrong("has a zone of nothing declared");
    }
    Ok(())
}

/// Whether a block of `raw` bytes, of elements of `size` bytes, has the length that it says, coded or not.
fn fits(block: &Block, raw: u64, size: u64) -> bool {
    let Some(mut pieces) = block.coded() else { return block.length == raw };
    let whole = block.pieces.as_ref().is_some_and(|pieces| pieces.len() as u64 == 4 * checksum::count(raw));
    // a table of lengths, and each plane as it is, or shorter: who reads a piece needs no more memory than this
    let possible = 5 * size..=4 * size + checksum::PIECE as u64;
    let sum = pieces.try_fold(0, |sum: u64, length| possible.contains(&length).then(|| sum + length));
    matches!(block.role, Role::Site | Role::Ids) && whole && sum == Some(block.length)
}

/// Whether of each sparse site there are row pointers, ids and values, and as many ids as values.
fn codes_are_whole(group: &Group, declared: &Declared) -> bool {
    let of = |role| group.blocks.iter().filter(move |block| block.role == role);
    let sparse = |block: &&Block| declared.sites.get(&block.id).is_some_and(Site::is_sparse);
    let mut values = of(Role::Site).filter(sparse);
    let count = values.clone().count();
    let whole = values.all(|value| {
        let ids = of(Role::Ids).find(|block| block.id == value.id);
        let indptr = of(Role::Indptr).any(|block| block.id == value.id);
        indptr && ids.is_some_and(|ids| ids.active == value.active)
    });
    whole && of(Role::Ids).count() == count && of(Role::Indptr).count() == count
}

/// The length that the declarations give a block; None if it is of nothing declared.
fn expected(group: &Group, block: &Block, declared: &Declared) -> Option<u64> {
    if block.role.is_site() {
        let site = declared.sites.get(&block.id)?;
        let active = || block.active.filter(|&active| active <= MOST_ACTIVE.min(group.rows * site.width()));
        return match (block.role, site.is_sparse()) {
            (Role::Site, false) if block.active.is_none() => group.rows.checked_mul(site.row_bytes()),
            (Role::Site, true) => Some(active()? * site.dtype.size()),
            (Role::Ids, true) => Some(active()? * site.id_dtype().size()),
            (Role::Indptr, true) if block.active.is_none() => Some(4 * (group.rows + 1)),
            _ => None,
        };
    }
    if block.role == Role::Names {
        return (block.id == 0).then_some(8 * group.rows);
    }
    let kind = declared.columns.get(&block.id).filter(|column| column.table == group.table)?.kind;
    match (block.role, kind) {
        (Role::Values, ColumnType::Int | ColumnType::Float | ColumnType::Time) => Some(8 * group.rows),
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
    use crate::record::{Constant, Op};
    use crate::value::Value;

    fn example() -> (Declared, Group) {
        let mut declared = Declared::default();
        declared
            .apply(&Op::Site(Site { id: 0, name: "x".to_owned(), dtype: DType::F32, shape: vec![2], sparse: None }))
            .expect("possible");
        let block = Block {
            role: Role::Site,
            id: 0,
            offset: 4096,
            length: 24,
            crcs: vec![0; 4],
            non_finite: 0,
            pieces: None,
            active: None,
        };
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
            last: None,
        };
        (declared, group)
    }

    #[test]
    fn what_a_writer_writes_passes_and_every_lie_is_refused() {
        let (declared, honest) = example();
        assert_eq!(group(&honest, &declared), Ok(()));
        let lies: [fn(&mut Group); 18] = [
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
            |g| g.blocks.clear(),
            |g| g.blocks[0].non_finite = u64::MAX,
            |g| g.length = 1 << 63,
            |g| g.table = Table::Examples,
            |g| g.constants.push(Constant { id: 0, value: Value::Int(1) }),
        ];
        for (index, lie) in lies.iter().enumerate() {
            let (declared, mut record) = example();
            lie(&mut record);
            assert!(group(&record, &declared).is_err(), "lie {index}");
        }
    }

    #[test]
    fn sparse_codes_have_three_blocks_that_agree() {
        let blocks = |active: u64| {
            let block = |role, offset, length, active| Block {
                role,
                id: 1,
                offset,
                length,
                crcs: vec![0; 4],
                non_finite: 0,
                pieces: None,
                active,
            };
            let values = block(Role::Site, 4096 + 16, 2 * active, Some(active));
            vec![
                block(Role::Indptr, 4096, 16, None),
                values,
                block(Role::Ids, 4096 + 16 + 2 * active, 2 * active, Some(active)),
            ]
        };
        let sparse = |active: u64| {
            let (mut declared, mut record) = example();
            let site = Site { id: 1, name: "sae".to_owned(), dtype: DType::F16, shape: vec![4], sparse: Some(true) };
            declared.apply(&Op::Site(site)).expect("possible");
            record.blocks = blocks(active);
            (declared, record)
        };
        let (declared, honest) = sparse(12);
        assert_eq!(group(&honest, &declared), Ok(()));
        let (declared, full) = sparse(13);
        assert!(group(&full, &declared).is_err(), "more units than rows and features allow");
        let lies: [fn(&mut Group); 11] = [
            |g| g.blocks[1].active = None,
            |g| g.blocks[1].active = Some(5),
            |g| g.blocks[2].active = Some(5),
            |g| (g.blocks[2].active, g.blocks[2].length) = (Some(5), 10),
            |g| g.blocks[2].active = Some(u64::MAX),
            |g| g.blocks[0].active = Some(4),
            |g| g.blocks[0].length = 12,
            |g| drop(g.blocks.remove(0)),
            |g| drop(g.blocks.remove(1)),
            |g| drop(g.blocks.remove(2)),
            |g| g.blocks.iter_mut().for_each(|block| block.id = 0),
        ];
        for (index, lie) in lies.iter().enumerate() {
            let (declared, mut record) = sparse(6);
            lie(&mut record);
            assert!(group(&record, &declared).is_err(), "lie {index}");
        }
    }

    #[test]
    fn names_of_rows_stand_in_a_block_or_follow_the_first() {
        let names = Block {
            role: Role::Names,
            id: 0,
            offset: 4120,
            length: 24,
            crcs: vec![0; 4],
            non_finite: 0,
            pieces: None,
            active: None,
        };
        let named = || {
            let (declared, mut record) = example();
            (record.last, record.table) = (Some(9), Table::Attached);
            record.blocks.push(names.clone());
            (declared, record)
        };
        let (declared, honest) = named();
        assert_eq!(group(&honest, &declared), Ok(()));
        let lies: [fn(&mut Group); 6] = [
            |g| g.last = None,
            |g| g.last = Some(1),
            |g| g.last = Some(i64::MAX),
            |g| g.blocks.truncate(1),
            |g| g.blocks[1].id = 1,
            |g| (g.blocks[1].length, g.blocks[1].crcs) = (16, vec![0; 4]),
        ];
        for (index, lie) in lies.iter().enumerate() {
            let (declared, mut record) = named();
            lie(&mut record);
            assert!(group(&record, &declared).is_err(), "lie {index}");
        }
    }

    #[test]
    fn coded_rows_say_how_long_each_piece_is() {
        let coded = |length: u64, pieces: &[u32]| {
            let (declared, mut record) = example();
            record.blocks[0].length = length;
            record.blocks[0].pieces =
                Some(pieces.iter().flat_map(|piece| piece.to_le_bytes()).collect::<Vec<u8>>().into());
            group(&record, &declared)
        };
        assert_eq!(coded(30, &[30]), Ok(()), "what does not shrink may grow by its table");
        let longest = 4 * 4 + checksum::PIECE as u32;
        assert!(coded(longest as u64, &[longest]).is_err(), "the group is shorter");
        for (length, pieces) in [(30, &[29][..]), (30, &[30, 0]), (30, &[15, 15]), (0, &[]), (19, &[19])] {
            assert!(coded(length, pieces).is_err(), "{length} {pieces:?}");
        }
        let (declared, mut record) = example();
        record.blocks[0].pieces = Some(vec![24, 0, 0, 0, 0].into());
        assert!(group(&record, &declared).is_err());
    }

    #[test]
    fn declarations_that_cannot_be_true_or_disagree_are_not_taken_up() {
        let site = |id, name: &str, shape: &[u64]| {
            Op::Site(Site { id, name: name.to_owned(), dtype: DType::F32, shape: shape.to_vec(), sparse: None })
        };
        let (mut declared, _) = example();
        assert!(declared.apply(&site(0, "x", &[2])).is_ok(), "the same again");
        for lie in [site(0, "x", &[3]), site(0, "y", &[2]), site(1, "x", &[2]), site(1, "step", &[2])] {
            assert!(declared.apply(&lie).is_err(), "{lie:?}");
        }
        assert!(declared.apply(&site(1, "wide", &[1 << 40, 1 << 40])).is_err());
        assert_eq!(declared.sites.len(), 1);
    }
}
