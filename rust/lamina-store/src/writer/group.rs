//! A row group while it grows, and how it is cut into blocks.

use super::column::{ColumnInput, ColumnStage, Values};
use super::declare::Ids;
use super::rows::Rows;
use super::{RowSet, SiteInput};
use lamina_format::record::{Constant, Role, Site, Table, Zone};
use lamina_format::sparse::Codes;
use lamina_format::{ColumnType, DType};

struct SiteStage {
    id: u32,
    dtype: DType,
    item: usize,
    /// Rows, or the values of codes.
    bytes: Rows,
    codes: Option<CodeStage>,
}

/// What of codes stands beside their values.
struct CodeStage {
    dtype: DType,
    indptr: Vec<u32>,
    ids: Rows,
}

/// Rows of a site that are written as they are.
pub enum SiteRows {
    Dense(Vec<u8>),
    Sparse(Codes),
}

/// Rows that share their sites and columns.
pub struct OpenGroup {
    table: Table,
    rows: u64,
    /// Names of the rows, i64 each, where they are those of rows that exist.
    names: Option<Vec<u8>>,
    row_bytes: usize,
    /// Bytes of texts and of active units.
    ragged_bytes: usize,
    /// Rows that a whole group has about.
    room: usize,
    sites: Vec<SiteStage>,
    columns: Vec<ColumnStage>,
}

/// A block to be written.
pub struct CutBlock {
    pub role: Role,
    pub id: u32,
    pub element: u64,
    pub bytes: Rows,
    /// Of a site's elements; None for metadata.
    pub dtype: Option<DType>,
    /// Of a site's rows that are coded.
    pub pieces: Option<Pieces>,
    /// Of ids and values of sparse codes: how many units are active.
    pub active: Option<u64>,
}

/// What the record says of coded rows.
pub struct Pieces {
    /// Bytes of each piece, u32 little-endian.
    pub lengths: Vec<u8>,
    /// Elements that are NaN or infinite.
    pub non_finite: u64,
}

/// A group cut into blocks, in the order in which they lie in the file.
pub struct Cut {
    pub table: Table,
    pub rows: u64,
    /// Least and greatest name, where the rows have a block of them.
    pub span: Option<(i64, i64)>,
    pub blocks: Vec<CutBlock>,
    pub constants: Vec<Constant>,
    pub zones: Vec<Zone>,
}

impl SiteStage {
    /// Bytes of an active unit.
    fn unit_bytes(&self) -> usize {
        (self.dtype.size() + self.codes.as_ref().map_or(0, |codes| codes.dtype.size())) as usize
    }
}

impl CodeStage {
    fn new(site: &Site) -> Self {
        Self { dtype: site.id_dtype(), indptr: vec![0], ids: Rows::default() }
    }
}

impl OpenGroup {
    /// An empty group that is to hold `target` bytes of rows.
    pub fn new(table: Table, set: &RowSet, ids: &Ids, target: usize) -> Self {
        let item = |site: &SiteInput| match site.codes {
            Some(_) => size_of::<u32>(),
            None => (site.shape.iter().product::<u64>() * site.dtype.size()) as usize,
        };
        let words = set.columns.len() + usize::from(set.names.is_some());
        let row_bytes = set.sites.iter().map(item).sum::<usize>() + 8 * words;
        let room = (target / row_bytes.max(1)).max(1);
        let sites = set.sites.iter().zip(&ids.sites);
        let sites = sites.map(|(site, &id)| SiteStage {
            id,
            dtype: site.dtype,
            item: item(site),
            bytes: Rows::default(),
            codes: site.codes.map(|_| CodeStage::new(&site.declared(id))),
        });
        let columns = set.columns.iter().zip(&ids.columns).map(|(column, &id)| ColumnStage::new(id, column.kind));
        let names = set.names.map(|_| Vec::new());
        let (sites, columns) = (sites.collect(), columns.collect());
        Self { table, rows: 0, names, row_bytes, ragged_bytes: 0, room, sites, columns }
    }

    /// A group that is written as it is: names if they do not follow each other, and of each site its rows.
    pub fn whole(
        table: Table,
        rows: u64,
        names: Option<Vec<u8>>,
        sites: Vec<(Site, SiteRows)>,
        columns: Vec<ColumnStage>,
    ) -> Self {
        let stage = |(site, rows): (Site, SiteRows)| {
            let (bytes, codes) = match rows {
                SiteRows::Dense(bytes) => (bytes, None),
                SiteRows::Sparse(codes) => {
                    let (dtype, count) = (site.id_dtype(), codes.ids.len());
                    let ids = codes.stored_ids(dtype, 0, count).into();
                    (codes.values, Some(CodeStage { dtype, indptr: codes.indptr, ids }))
                }
            };
            SiteStage { id: site.id, dtype: site.dtype, item: 0, bytes: bytes.into(), codes }
        };
        let sites = sites.into_iter().map(stage).collect();
        Self { table, rows, names, row_bytes: 0, ragged_bytes: 0, room: 0, sites, columns }
    }

    /// Whether it takes rows of these sites and columns, in this order.
    pub fn holds(&self, table: Table, ids: &Ids) -> bool {
        self.table == table
            && self.sites.iter().map(|site| site.id).eq(ids.sites.iter().copied())
            && self.columns.iter().map(|column| column.id).eq(ids.columns.iter().copied())
    }

    /// Rows so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes a row takes, texts and active units not counted.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.rows as usize * self.row_bytes + self.ragged_bytes
    }

    /// Adds the rows `from..to`, or fewer if their texts and active units reach `target` bytes; returns how many. What is not lent is
    /// copied, into buffers of so many bytes from `take`.
    pub fn push(
        &mut self,
        from: u64,
        to: u64,
        set: &RowSet,
        target: usize,
        mut take: impl FnMut(usize) -> Vec<u8>,
    ) -> u64 {
        let &RowSet { sites, columns, .. } = set;
        let (from, mut to) = (from as usize, to as usize);
        let text = |row: usize| -> usize {
            let length = |column: &ColumnInput| match &column.values {
                Values::Texts(texts) => texts[row].as_ref().map_or(0, String::len),
                Values::Constant(lamina_format::Value::Str(text)) => text.len(),
                _ => 0,
            };
            columns.iter().map(length).sum()
        };
        let codes = self.sites.iter().zip(sites).filter_map(|(stage, site)| Some((site.codes?, stage.unit_bytes())));
        let codes: Vec<(&Codes, usize)> = codes.collect();
        let units = |row: usize| -> usize { codes.iter().map(|(codes, bytes)| codes.ids_of(row).len() * bytes).sum() };
        let room = target.saturating_sub(self.bytes());
        if columns.iter().any(|column| column.kind == ColumnType::Str) || !codes.is_empty() {
            let (start, mut ragged, mut row) = (self.bytes(), 0, from);
            while row < to && (row == from || start + ragged + (row - from) * self.row_bytes < target) {
                ragged += text(row) + units(row);
                row += 1;
            }
            to = row;
            self.ragged_bytes += ragged;
        }
        for (stage, site) in self.sites.iter_mut().zip(sites) {
            if let (Some(here), Some(codes)) = (&mut stage.codes, site.codes) {
                let size = stage.dtype.size() as usize;
                let (first, last) = (codes.indptr[from] as usize, codes.indptr[to] as usize);
                let ids = codes.stored_ids(here.dtype, first, last);
                let units = (room / (size + here.dtype.size() as usize)).max(last - first);
                here.ids.copy(&ids, || take(units * here.dtype.size() as usize));
                stage.bytes.copy(&codes.values[first * size..last * size], || take(units * size));
                let start = here.indptr.last().copied().unwrap_or(0);
                here.indptr.extend(codes.indptr[from + 1..=to].iter().map(|&end| end - first as u32 + start));
                continue;
            }
            let range = from * stage.item..to * stage.item;
            match &site.lent {
                Some(memory) => stage.bytes.lend(memory, range),
                None => {
                    let rest = (self.room * stage.item).saturating_sub(stage.bytes.len()).max(range.len());
                    stage.bytes.copy(&site.bytes[range], || take(rest));
                }
            }
        }
        if let (Some(all), Some(names)) = (&mut self.names, set.names) {
            all.extend(names[from..to].iter().flat_map(|name| name.to_le_bytes()));
        }
        for (stage, column) in self.columns.iter_mut().zip(columns) {
            stage.push(column, from, to);
        }
        self.rows += (to - from) as u64;
        (to - from) as u64
    }

    /// Cuts it into blocks of falling element size, so that one pad aligns them all.
    pub fn cut(self) -> Cut {
        let (mut blocks, mut constants, mut zones) = (Vec::new(), Vec::new(), Vec::new());
        for site in self.sites {
            let active = site.codes.as_ref().map(|_| site.bytes.len() as u64 / site.dtype.size());
            let block = |role, dtype: DType, bytes, active| {
                let (id, element, dtype) = (site.id, dtype.size(), Some(dtype));
                CutBlock { role, id, element, bytes, dtype, pieces: None, active }
            };
            if let Some(codes) = site.codes {
                let indptr: Vec<u8> = codes.indptr.iter().flat_map(|end| end.to_le_bytes()).collect();
                blocks.push(block(Role::Indptr, DType::U32, indptr.into(), None));
                blocks.push(block(Role::Ids, codes.dtype, codes.ids, active));
            }
            blocks.push(block(Role::Site, site.dtype, site.bytes, active));
        }
        let mut block = |role, id, element, bytes: Vec<u8>| {
            blocks.push(CutBlock { role, id, element, bytes: bytes.into(), dtype: None, pieces: None, active: None });
        };
        let span = self.names.as_ref().and_then(|names| {
            let names = names.as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes));
            Some((names.clone().min()?, names.max()?))
        });
        if let Some(names) = self.names {
            block(Role::Names, 0, 8, names);
        }
        for column in self.columns {
            if let Some(value) = column.constant() {
                constants.push(Constant { id: column.id, value: value.clone() });
                continue;
            }
            zones.push(column.zone());
            match column.kind {
                ColumnType::Str => {
                    let offsets = column.offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect();
                    block(Role::Offsets, column.id, 4, offsets);
                    block(Role::Bytes, column.id, 1, column.values);
                }
                ColumnType::Bool => block(Role::Values, column.id, 1, column.values),
                ColumnType::Int | ColumnType::Float | ColumnType::Time => {
                    block(Role::Values, column.id, 8, column.values);
                }
            }
            if let Some(valid) = column.valid {
                block(Role::Valid, column.id, 1, valid);
            }
        }
        blocks.sort_by_key(|block| std::cmp::Reverse(block.element));
        Cut { table: self.table, rows: self.rows, span, blocks, constants, zones }
    }
}
