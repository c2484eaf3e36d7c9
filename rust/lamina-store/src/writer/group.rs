//! A row group while it grows, and how it is cut into blocks.

use super::column::{ColumnInput, ColumnStage, Values};
use super::declare::Ids;
use super::rows::Rows;
use super::{RowSet, SiteInput};
use lamina_format::record::{Constant, Role, Table, Zone};
use lamina_format::{ColumnType, DType};

struct SiteStage {
    id: u32,
    dtype: DType,
    item: usize,
    bytes: Rows,
}

/// Rows that share their sites and columns.
pub struct OpenGroup {
    table: Table,
    rows: u64,
    /// Names of the rows, i64 each, where they are those of rows that exist.
    names: Option<Vec<u8>>,
    row_bytes: usize,
    text_bytes: usize,
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

impl OpenGroup {
    /// An empty group that is to hold `target` bytes of rows.
    pub fn new(table: Table, set: &RowSet, ids: &Ids, target: usize) -> Self {
        let item = |site: &SiteInput| (site.shape.iter().product::<u64>() * site.dtype.size()) as usize;
        let words = set.columns.len() + usize::from(set.names.is_some());
        let row_bytes = set.sites.iter().map(item).sum::<usize>() + 8 * words;
        let room = (target / row_bytes.max(1)).max(1);
        let sites = set.sites.iter().zip(&ids.sites);
        let sites =
            sites.map(|(site, &id)| SiteStage { id, dtype: site.dtype, item: item(site), bytes: Rows::default() });
        let columns = set.columns.iter().zip(&ids.columns).map(|(column, &id)| ColumnStage::new(id, column.kind));
        let names = set.names.map(|_| Vec::new());
        let (sites, columns) = (sites.collect(), columns.collect());
        Self { table, rows: 0, names, row_bytes, text_bytes: 0, room, sites, columns }
    }

    /// A group that is written as it is: names if they do not follow each other, of each site its number, dtype and rows.
    pub fn whole(
        table: Table,
        rows: u64,
        names: Option<Vec<u8>>,
        sites: Vec<(u32, DType, Vec<u8>)>,
        columns: Vec<ColumnStage>,
    ) -> Self {
        let site = |(id, dtype, bytes): (_, _, Vec<u8>)| SiteStage { id, dtype, item: 0, bytes: bytes.into() };
        let sites = sites.into_iter().map(site).collect();
        Self { table, rows, names, row_bytes: 0, text_bytes: 0, room: 0, sites, columns }
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

    /// Bytes a row takes, texts not counted.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.rows as usize * self.row_bytes + self.text_bytes
    }

    /// Adds the rows `from..to`, or fewer if their texts reach `target` bytes; returns how many. What is not lent is
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
        if columns.iter().any(|column| column.kind == ColumnType::Str) {
            let (start, mut texts, mut row) = (self.bytes(), 0, from);
            while row < to && (row == from || start + texts + (row - from) * self.row_bytes < target) {
                texts += text(row);
                row += 1;
            }
            to = row;
            self.text_bytes += texts;
        }
        for (stage, site) in self.sites.iter_mut().zip(sites) {
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
            let (element, dtype) = (site.dtype.size(), Some(site.dtype));
            blocks.push(CutBlock { role: Role::Site, id: site.id, element, bytes: site.bytes, dtype, pieces: None });
        }
        let mut block = |role, id, element, bytes: Vec<u8>| {
            blocks.push(CutBlock { role, id, element, bytes: bytes.into(), dtype: None, pieces: None });
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
