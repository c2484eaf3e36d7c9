//! Rows of several groups as groups of their own: without what is hidden, with their names.

use super::cold::chill;
use super::plan::Batch;
use crate::Snapshot;
use crate::reader::{ColumnData, Mask, StoredGroup};
use crate::writer::column::ColumnStage;
use crate::writer::group::{Cut, OpenGroup, SiteRows};
use crate::writer::{ColumnInput, Values};
use lamina_format::codec::Planes;
use lamina_format::record::{Block, Column, Site, Table};
use lamina_format::sparse::Codes;
use lamina_format::{Error, Result, Value};
use std::collections::{BTreeMap, HashSet};

/// Rows that show the same sites.
struct Output {
    table: Table,
    sites: Vec<(Site, SiteRows)>,
    columns: BTreeMap<u32, ColumnStage>,
    names: Vec<i64>,
}

/// A group to be written, with the name of its first row.
pub struct Rewritten {
    pub cut: Cut,
    pub first: i64,
    /// Bytes of its blocks.
    pub bytes: u64,
}

/// Reads a batch, verifying every byte. Nothing comes of it if all of its rows are hidden.
pub fn rewrite(snapshot: &Snapshot, batch: &Batch, cold: &HashSet<u32>) -> Result<Vec<Rewritten>> {
    let mut outputs: BTreeMap<Vec<u32>, Output> = BTreeMap::new();
    for group in &batch.members {
        for (sites, rows) in shown(group) {
            let output = match outputs.entry(sites) {
                std::collections::btree_map::Entry::Occupied(there) => there.into_mut(),
                std::collections::btree_map::Entry::Vacant(free) => {
                    let output = Output::new(snapshot, batch.table, free.key())?;
                    free.insert(output)
                }
            };
            output.push(snapshot, group, &rows)?;
        }
    }
    // what is cold stays so
    let coded = batch.members.iter().flat_map(|group| &group.record.blocks).filter(|block| block.pieces.is_some());
    let cold: HashSet<u32> = coded.filter_map(Block::site).chain(cold.iter().copied()).collect();
    let mut planes = Planes::default();
    let finish = |output: Output| {
        let mut written = output.cut();
        chill(&mut written.cut, &cold, &mut planes)?;
        written.bytes = written.cut.blocks.iter().map(|block| block.bytes.len() as u64).sum();
        Ok(written)
    };
    outputs.into_values().map(finish).collect()
}

/// The rows of a group that show something, by the sites of which they do; None stands for all.
fn shown(group: &StoredGroup) -> Vec<(Vec<u32>, Option<Vec<usize>>)> {
    let mut sites: Vec<u32> = group.sites().collect();
    sites.sort_unstable();
    let masks: Vec<(u32, Mask)> = sites.iter().map(|&site| (site, group.hidden.of_site(site))).collect();
    if group.record.table == Table::Examples || !masks.is_empty() && masks.iter().all(|(_, mask)| *mask == Mask::None) {
        return vec![(sites, None)];
    }
    let mut parts: BTreeMap<Vec<u32>, Vec<usize>> = BTreeMap::new();
    for row in 0..group.record.rows as usize {
        let shows = |mask: &Mask| match mask {
            Mask::None => true,
            Mask::All => false,
            Mask::Some(hidden) => hidden[row] == 0,
        };
        let of_row: Vec<u32> = masks.iter().filter(|(_, mask)| shows(mask)).map(|(site, _)| *site).collect();
        if !of_row.is_empty() {
            parts.entry(of_row).or_default().push(row);
        }
    }
    parts.into_iter().map(|(sites, rows)| (sites, Some(rows))).collect()
}

impl Output {
    fn new(snapshot: &Snapshot, table: Table, sites: &[u32]) -> Result<Self> {
        let unknown = || Error::damaged("a row group holds a site that is not declared");
        let stage = |&id: &u32| {
            let site = snapshot.site_by_id(id).ok_or_else(unknown)?.clone();
            let empty = if site.is_sparse() { SiteRows::Sparse(Codes::default()) } else { SiteRows::Dense(Vec::new()) };
            Ok((site, empty))
        };
        let sites = sites.iter().map(stage).collect::<Result<_>>()?;
        Ok(Self { table, sites, columns: BTreeMap::new(), names: Vec::new() })
    }

    fn push(&mut self, snapshot: &Snapshot, group: &StoredGroup, rows: &Option<Vec<usize>>) -> Result<()> {
        let all = group.record.rows as usize;
        let before = self.names.len();
        let names = snapshot.names_of(group)?;
        match rows {
            None => self.names.extend(names),
            Some(rows) => self.names.extend(rows.iter().map(|&row| names[row])),
        }
        let more = self.names.len() - before;
        for (site, out) in &mut self.sites {
            match out {
                SiteRows::Sparse(out) => {
                    let codes = snapshot.codes_of(group, site)?.all()?;
                    let size = site.dtype.size() as usize;
                    let whole = match rows {
                        None => out.extend(&codes, 0..codes.rows(), size),
                        Some(rows) => out.extend(&codes, rows.iter().copied(), size),
                    };
                    let many =
                        || Error::damaged("row groups have 2^32 active units or more").in_file(&group.record.file);
                    whole.ok_or_else(many)?;
                }
                SiteRows::Dense(out) => {
                    let bytes = snapshot.site_of(group, site.id)?;
                    let item = bytes.len() / all;
                    match rows {
                        None => out.extend_from_slice(&bytes),
                        Some(rows) => {
                            rows.iter().for_each(|&row| out.extend_from_slice(&bytes[row * item..(row + 1) * item]));
                        }
                    }
                }
            }
        }
        let has = |id: u32| {
            group.record.blocks.iter().any(|block| block.column() == Some(id))
                || group.record.constants.iter().any(|constant| constant.id == id)
        };
        let table = self.table;
        let declared = snapshot.declared().columns.values().filter(|column| column.table == table);
        for column in declared {
            if !has(column.id) && !self.columns.contains_key(&column.id) {
                continue;
            }
            let stage = self.columns.entry(column.id).or_insert_with(|| {
                let mut stage = ColumnStage::new(column.id, column.kind);
                push(&mut stage, column, Values::Constant(Value::Null), None, before);
                stage
            });
            let data =
                if has(column.id) { snapshot.column_of(group, column)? } else { ColumnData::Constant(Value::Null) };
            push_data(stage, column, data, rows, all, more);
        }
        Ok(())
    }

    fn cut(self) -> Rewritten {
        let first = self.names.first().copied().unwrap_or(0);
        let follow = self.table != Table::Attached && self.names.iter().zip(first..).all(|(&name, next)| name == next);
        let names = (!follow).then(|| self.names.iter().flat_map(|name| name.to_le_bytes()).collect());
        let columns = self.columns.into_values().collect();
        let cut = OpenGroup::whole(self.table, self.names.len() as u64, names, self.sites, columns).cut();
        Rewritten { cut, first, bytes: 0 }
    }
}

fn push(stage: &mut ColumnStage, column: &Column, values: Values, valid: Option<&[u8]>, rows: usize) {
    if rows > 0 {
        stage.push(&ColumnInput { name: &column.name, kind: column.kind, values, valid }, 0, rows);
    }
}

/// Adds the rows of a column as it lies in a file.
fn push_data(
    stage: &mut ColumnStage,
    column: &Column,
    data: ColumnData,
    rows: &Option<Vec<usize>>,
    all: usize,
    more: usize,
) {
    let everything: Vec<usize>;
    let rows = match rows {
        Some(rows) => rows,
        None => {
            everything = (0..all).collect();
            &everything
        }
    };
    match data {
        ColumnData::Constant(value) => push(stage, column, Values::Constant(value), None, more),
        ColumnData::Fixed(values, valid) => {
            let width = values.len() / all;
            let chosen: Vec<u8> =
                rows.iter().flat_map(|&row| &values[row * width..(row + 1) * width]).copied().collect();
            let valid: Option<Vec<u8>> = valid.map(|valid| rows.iter().map(|&row| valid[row]).collect());
            push(stage, column, Values::Fixed(&chosen), valid.as_deref(), more);
        }
        ColumnData::Texts(offsets, bytes, valid) => {
            let text = |&row: &usize| {
                let given = valid.as_ref().is_none_or(|valid| valid[row] != 0);
                let slice = &bytes[offsets[row] as usize..offsets[row + 1] as usize];
                given.then(|| String::from_utf8_lossy(slice).into_owned())
            };
            push(stage, column, Values::Texts(rows.iter().map(text).collect()), None, more);
        }
    }
}

/// The declarations that a group uses: (is a site, number).
pub fn used(group: &lamina_format::record::Group) -> impl Iterator<Item = (bool, u32)> {
    let sites = group.sites().map(|id| (true, id));
    let columns = group.blocks.iter().filter_map(Block::column).map(|id| (false, id));
    sites.chain(columns).chain(group.constants.iter().map(|constant| (false, constant.id)))
}
