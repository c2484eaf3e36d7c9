//! What is given to a writer: rows of sites with their metadata, parts of checkpoints.

use super::column::{self, ColumnInput};
use super::rows::Lent;
use super::staged::TensorBytes;
use lamina_format::record::{Site, Table, TensorSpec};
use lamina_format::segment::WIDEST;
use lamina_format::sparse::Codes;
use lamina_format::{DType, Error, Result};

/// Rows of one site: `bytes` holds as many items of `shape` as the append has rows.
pub struct SiteInput<'a> {
    /// Name.
    pub name: &'a str,
    /// Element type.
    pub dtype: DType,
    /// Shape of one row's item; of sparse codes the number of features alone.
    pub shape: Vec<u64>,
    /// The rows, if they are dense.
    pub bytes: &'a [u8],
    /// The memory that `bytes` is all of, if the writer may keep it until it is written, instead of a copy.
    pub lent: Option<Lent>,
    /// The rows, if they are sparse codes: as [`Entries::codes`] makes them.
    pub codes: Option<&'a Codes>,
}

impl SiteInput<'_> {
    /// What a declaration must say of it.
    pub(super) fn declared(&self, id: u32) -> Site {
        let (name, shape) = (self.name.to_owned(), self.shape.clone());
        Site { id, name, dtype: self.dtype, shape, sparse: self.codes.map(|_| true) }
    }

    pub(super) fn size(&self) -> usize {
        self.bytes.len() + self.codes.map_or(0, |codes| codes.values.len() + 4 * codes.ids.len() + 4 * codes.rows())
    }
}

/// Rows that share their metadata columns.
pub struct RowSet<'a> {
    /// How many.
    pub rows: u64,
    /// What they hold.
    pub sites: &'a [SiteInput<'a>],
    /// Their metadata.
    pub columns: &'a [ColumnInput<'a>],
    /// Names of rows that exist: then the sites are attached to them, and there are no columns.
    pub names: Option<&'a [i64]>,
}

impl RowSet<'_> {
    /// Refuses what contradicts itself.
    pub(super) fn check(&self) -> Result<()> {
        for site in self.sites {
            if let Some(codes) = site.codes {
                if codes.rows() as u64 != self.rows || site.shape.len() != 1 || !site.bytes.is_empty() {
                    return Err(Error::schema(format!("the codes of {:?} have {} rows", site.name, codes.rows())));
                }
                continue;
            }
            let width = site.shape.iter().try_fold(1u64, |width, &length| width.checked_mul(length));
            let Some(item) = width.filter(|&width| width <= WIDEST).map(|width| width * site.dtype.size()) else {
                let text = format!("site {:?} has rows of more than {WIDEST} elements", site.name);
                return Err(Error::schema(text).hint("record its parts as sites of their own"));
            };
            if item == 0 {
                return Err(Error::schema(format!("site {:?} has rows of no elements", site.name)));
            }
            if site.bytes.len() as u64 != self.rows * item {
                let (name, given, taken) = (site.name, site.bytes.len(), self.rows * item);
                return Err(Error::schema(format!("site {name:?} has {given} bytes, {} rows take {taken}", self.rows)));
            }
            if site.lent.as_ref().is_some_and(|memory| memory.as_ref().as_ref().len() != site.bytes.len()) {
                return Err(Error::schema(format!("site {:?} lends other bytes than its own", site.name)));
            }
        }
        if self.names.is_some_and(|names| names.len() as u64 != self.rows || !self.columns.is_empty()) {
            return Err(Error::schema("sites are attached to as many rows as they have, without columns"));
        }
        column::check(self.rows, self.columns)
    }

    pub(super) fn table(&self) -> Table {
        if self.names.is_some() { Table::Attached } else { Table::Rows }
    }

    pub(super) fn bytes(&self) -> usize {
        self.sites.iter().map(SiteInput::size).sum::<usize>() + 8 * self.columns.len() * self.rows as usize
    }
}

/// A part of a checkpoint.
pub struct PartInput<'a> {
    /// Name.
    pub name: &'a str,
    /// JSON of the nested state.
    pub tree: &'a str,
    /// JSON of the scalars.
    pub scalars: &'a str,
    /// Tensors in order, with their bytes.
    pub tensors: Vec<(TensorSpec, TensorBytes<'a>)>,
}
