//! The header that makes a segment a plain safetensors file: a pure function of its group records.

use crate::cbor;
use crate::checksum::hash;
use crate::dtype::{ColumnType, DType};
use crate::error::{Error, Result};
use crate::names;
use crate::record::{Block, Column, Group, Op, Role, Site};
use serde_json::json;
use std::collections::{BTreeMap, HashSet};

/// Groups begin at multiples of this.
pub const ALIGN: u64 = 4096;
/// Bytes kept free for the header by default, its 8-byte length included.
pub const RESERVE: u64 = 1 << 20;
/// The largest reserve; the safetensors library refuses headers above 100,000,000 bytes.
pub const LARGEST_RESERVE: u64 = 64 << 20;
/// Tensors that a segment may hold: more make the library slow to open it.
pub const MOST_TENSORS: usize = 10_000;

/// Rows at which a group is cut, however narrow they are.
pub const MOST_ROWS: u64 = 1 << 20;
/// Active units that the sparse codes of a group may have: row pointers count them.
pub const MOST_ACTIVE: u64 = u32::MAX as u64;
/// Elements that a row of a site may have.
pub const WIDEST: u64 = i32::MAX as u64;

/// Rounds up to the next group boundary.
pub fn aligned(offset: u64) -> u64 {
    offset.next_multiple_of(ALIGN)
}

/// The declarations that a segment's groups refer to.
#[derive(Clone, Debug, Default)]
pub struct Declared {
    /// Sites by number.
    pub sites: BTreeMap<u32, Site>,
    /// Columns by number.
    pub columns: BTreeMap<u32, Column>,
}

impl Declared {
    /// Takes up a declaration; other operations are ignored. One that cannot be true, or contradicts an earlier one,
    /// is an error and is not taken up.
    pub fn apply(&mut self, op: &Op) -> Result<()> {
        match op {
            Op::Site(site) => {
                names::check_site(&site.name)?;
                let codes = !site.is_sparse() || site.shape.len() == 1 && site.dtype.is_for_codes();
                if site.width() == 0 || site.width() > WIDEST || !site.dtype.is_for_rows() || !codes {
                    return Err(Error::damaged(format!("site {:?} has an impossible shape or dtype", site.name)));
                }
                let alike = |other: &&Site| other.id == site.id || other.name == site.name;
                agree(self.sites.values().find(alike), site, &site.name)?;
                self.sites.insert(site.id, site.clone());
            }
            Op::Column(column) => {
                names::check_column(&column.name)?;
                let alike =
                    |other: &&Column| other.id == column.id || other.table == column.table && other.name == column.name;
                agree(self.columns.values().find(alike), column, &column.name)?;
                self.columns.insert(column.id, column.clone());
            }
            _ => {}
        }
        Ok(())
    }

    fn tensor(&self, group: &Group, block: &Block) -> Result<(String, &'static str, Vec<u64>)> {
        let prefix = format!("g{:06}", group.number);
        let unknown = || Error::damaged(format!("a block of group {} belongs to nothing declared", group.number));
        if block.role.is_site() {
            let site = self.sites.get(&block.id).ok_or_else(unknown)?;
            let (part, dtype) = match block.role {
                Role::Indptr => ("/.indptr", DType::U32),
                Role::Ids => ("/.ids", site.id_dtype()),
                _ if site.is_sparse() => ("/.values", site.dtype),
                _ => ("", site.dtype),
            };
            if block.pieces.is_some() {
                return Ok((format!("{prefix}/{}{part}/.planes", site.name), "U8", vec![block.length]));
            }
            let dtype = dtype.safetensors().ok_or_else(unknown)?;
            if site.is_sparse() {
                let rows = block.active.unwrap_or(group.rows + 1);
                return Ok((format!("{prefix}/{}{part}", site.name), dtype, vec![rows]));
            }
            let shape = [&[group.rows], site.shape.as_slice()].concat();
            return Ok((format!("{prefix}/{}", site.name), dtype, shape));
        }
        if block.role == Role::Names {
            return Ok((format!("{prefix}/.rows"), "I64", vec![group.rows]));
        }
        let column = self.columns.get(&block.id).ok_or_else(unknown)?;
        let (suffix, dtype, length) = match (block.role, column.kind) {
            (Role::Values, ColumnType::Int | ColumnType::Time) => ("", "I64", group.rows),
            (Role::Values, ColumnType::Float) => ("", "F64", group.rows),
            (Role::Values, ColumnType::Bool) => ("", "BOOL", group.rows),
            (Role::Offsets, _) => ("/.offsets", "U32", group.rows + 1),
            (Role::Bytes, _) => ("/.bytes", "U8", block.length),
            _ => ("/.valid", "BOOL", group.rows),
        };
        Ok((format!("{prefix}/.meta/{}{suffix}", column.name), dtype, vec![length]))
    }
}

/// A sealed segment's last tensor and header.
#[derive(Debug, PartialEq)]
pub struct Sealed {
    /// Bytes of `.table`: the declarations and group records, as CBOR.
    pub table: Vec<u8>,
    /// Where `.table` begins.
    pub table_offset: u64,
    /// The header region: length, JSON, spaces up to the reserve.
    pub header: Vec<u8>,
    /// BLAKE3 of `.table`.
    pub root: [u8; 32],
}

fn agree<T: PartialEq>(earlier: Option<&T>, declared: &T, name: &str) -> Result<()> {
    match earlier {
        Some(earlier) if earlier != declared => Err(Error::damaged(format!("two declarations of {name:?} disagree"))),
        _ => Ok(()),
    }
}

/// What has to be written to seal a segment that holds `groups`, in order of offset, after `reserve` bytes.
pub fn seal(declared: &Declared, groups: &[Group], reserve: u64) -> Result<Sealed> {
    let follows = |end: u64, group: &Group| (group.offset >= end).then(|| group.offset.checked_add(group.length))?;
    let end = groups.iter().try_fold(reserve, follows);
    if end.is_none() || !(8..=LARGEST_RESERVE).contains(&reserve) {
        return Err(Error::damaged("the row groups of a segment overlap, or begin at an impossible place"));
    }
    let mut ops: Vec<Op> = Vec::new();
    let sites: HashSet<u32> = groups.iter().flat_map(Group::sites).collect();
    let constants = groups.iter().flat_map(|group| &group.constants).map(|constant| constant.id);
    let columns: HashSet<u32> =
        groups.iter().flat_map(|group| &group.blocks).filter_map(Block::column).chain(constants).collect();
    ops.extend(declared.sites.values().filter(|site| sites.contains(&site.id)).cloned().map(Op::Site));
    ops.extend(declared.columns.values().filter(|column| columns.contains(&column.id)).cloned().map(Op::Column));
    ops.extend(groups.iter().cloned().map(Op::Group));
    let table = cbor::encode(&ops);
    let table_offset = groups.last().map_or(reserve, |group| group.offset + group.length);

    let mut json = String::from("{\"__metadata__\":{\"format\":\"lamina\"}");
    let mut entry = |name: &str, dtype: &str, shape: &[u64], start: u64, end: u64| {
        json += &format!(
            ",{}:{{\"dtype\":\"{dtype}\",\"shape\":{},\"data_offsets\":[{},{}]}}",
            json!(name),
            json!(shape),
            start - reserve,
            end - reserve
        );
    };
    for group in groups {
        let mut end = group.offset;
        for block in &group.blocks {
            let (name, dtype, shape) = declared.tensor(group, block)?;
            end = block.offset + block.length;
            entry(&name, dtype, &shape, block.offset, end);
        }
        let pad = group.offset + group.length - end;
        if pad > 0 {
            entry(&format!("g{:06}/.pad", group.number), "U8", &[pad], end, group.offset + group.length);
        }
    }
    entry(".table", "U8", &[table.len() as u64], table_offset, table_offset + table.len() as u64);
    json.push('}');

    let region = reserve - 8;
    if json.len() as u64 > region {
        return Err(Error::damaged(format!("a segment's header of {} bytes exceeds its reserve", json.len())));
    }
    let mut header = region.to_le_bytes().to_vec();
    header.extend_from_slice(json.as_bytes());
    header.resize(reserve as usize, b' ');
    let root = hash(&table);
    Ok(Sealed { table, table_offset, header, root })
}

/// An upper bound on the header bytes that a group's tensors take, and how many tensors they are.
pub fn header_cost(declared: &Declared, group: &Group) -> Result<(u64, usize)> {
    // 140 bytes cover the punctuation, a dtype and three 20-digit numbers; an escaped name grows at most twofold
    let mut bytes = 140;
    for block in &group.blocks {
        let (name, _, shape) = declared.tensor(group, block)?;
        bytes += 2 * name.len() as u64 + 140 + 21 * shape.len() as u64;
    }
    Ok((bytes, group.blocks.len() + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Table;

    fn group() -> (Declared, Group) {
        let mut declared = Declared::default();
        let name = "blocks.0 \"quoted\"/sae".to_owned();
        declared
            .apply(&Op::Site(Site { id: 3, name, dtype: DType::F16, shape: vec![2, 5], sparse: None }))
            .expect("possible");
        let block = Block {
            role: Role::Site,
            id: 3,
            offset: RESERVE,
            length: 140,
            crcs: vec![0; 4],
            non_finite: 0,
            pieces: None,
            active: None,
        };
        let group = Group {
            file: "segments/000000-000000.safetensors".to_owned(),
            number: 0,
            table: Table::Rows,
            offset: RESERVE,
            length: ALIGN,
            first: 0,
            rows: 7,
            blocks: vec![block],
            constants: vec![],
            zones: vec![],
            last: None,
        };
        (declared, group)
    }

    #[test]
    fn the_header_covers_the_file_without_a_gap() {
        let (declared, group) = group();
        let sealed = seal(&declared, std::slice::from_ref(&group), RESERVE).expect("fits");
        assert_eq!(sealed.header.len() as u64, RESERVE);
        let json: serde_json::Value = serde_json::from_slice(&sealed.header[8..]).expect("JSON");
        let mut spans: Vec<(u64, u64)> = json
            .as_object()
            .expect("object")
            .iter()
            .filter(|(name, _)| *name != "__metadata__")
            .map(|(_, t)| (t["data_offsets"][0].as_u64().expect("start"), t["data_offsets"][1].as_u64().expect("end")))
            .collect();
        spans.sort_unstable();
        assert_eq!(spans.first().map(|span| span.0), Some(0));
        assert!(spans.windows(2).all(|pair| pair[0].1 == pair[1].0));
        let (cost, tensors) = header_cost(&declared, &group).expect("known");
        assert!(cost + 400 > json.to_string().len() as u64 && tensors == 2);
    }

    #[test]
    fn sealing_twice_gives_the_same_bytes() {
        let (declared, group) = group();
        let groups = [group];
        assert_eq!(seal(&declared, &groups, RESERVE), seal(&declared, &groups, RESERVE));
    }

    #[test]
    fn a_block_of_nothing_declared_is_damage() {
        let (_, group) = group();
        assert!(seal(&Declared::default(), &[group], RESERVE).is_err());
    }
}
