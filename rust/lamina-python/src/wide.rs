//! What the wide frame asks of many groups at once: zones, metadata, and rows of a site wherever they lie.

use crate::arrow::{self, ArrowArray};
use crate::buffer::Bytes;
use crate::errors::raise;
use crate::snapshot::Snapshot;
use arrow_array::builder::{BooleanBufferBuilder, StringViewBuilder};
use arrow_array::{ArrayRef, BooleanArray, Float64Array, Int64Array};
use arrow_buffer::{MutableBuffer, NullBuffer};
use lamina_format::record::{Column, Table};
use lamina_format::{ColumnType, Error, Value};
use lamina_store::reader::{ColumnData, Kind};
use pyo3::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;

/// A column of several groups, one behind the other.
#[derive(Default)]
struct Cells {
    integers: Vec<i64>,
    floats: Vec<f64>,
    valid: Option<BooleanBufferBuilder>,
    rows: usize,
}

impl Cells {
    /// Notes which of the next rows have a value.
    fn validate(&mut self, rows: usize, valid: impl Fn(usize) -> bool, all: bool) {
        if !all && self.valid.is_none() {
            let mut builder = BooleanBufferBuilder::new(self.rows + rows);
            builder.append_n(self.rows, true);
            self.valid = Some(builder);
        }
        if let Some(builder) = &mut self.valid {
            (0..rows).for_each(|row| builder.append(valid(row)));
        }
        self.rows += rows;
    }

    fn extend(&mut self, kind: ColumnType, rows: usize, data: ColumnData) {
        match data {
            ColumnData::Constant(value) => {
                let null = value == Value::Null;
                match (kind, value) {
                    (ColumnType::Float, Value::Float(x)) => self.floats.extend(std::iter::repeat_n(x, rows)),
                    (ColumnType::Float, _) => self.floats.extend(std::iter::repeat_n(0.0, rows)),
                    (_, Value::Int(x)) => self.integers.extend(std::iter::repeat_n(x, rows)),
                    (_, Value::Bool(x)) => self.integers.extend(std::iter::repeat_n(i64::from(x), rows)),
                    _ => self.integers.extend(std::iter::repeat_n(0, rows)),
                }
                self.validate(rows, |_| !null, !null);
            }
            ColumnData::Fixed(bytes, valid) => {
                match kind {
                    ColumnType::Float => self.floats.extend(bytes.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b))),
                    ColumnType::Bool => self.integers.extend(bytes.iter().map(|&byte| i64::from(byte != 0))),
                    _ => self.integers.extend(bytes.as_chunks().0.iter().map(|&b| i64::from_le_bytes(b))),
                }
                let valid = valid.as_deref();
                self.validate(rows, |row| valid.is_none_or(|valid| valid[row] != 0), valid.is_none());
            }
            ColumnData::Texts(..) => {}
        }
    }

    fn finish(self, kind: ColumnType) -> ArrayRef {
        let nulls = self.valid.map(|mut valid| NullBuffer::new(valid.finish()));
        match kind {
            ColumnType::Float => Arc::new(Float64Array::new(self.floats.into(), nulls)),
            ColumnType::Bool => {
                Arc::new(BooleanArray::new(self.integers.iter().map(|&x| x != 0).collect::<Vec<_>>().into(), nulls))
            }
            ColumnType::Time => arrow::times(self.integers, nulls),
            _ => Arc::new(Int64Array::new(self.integers.into(), nulls)),
        }
    }
}

/// Views, so that a text that stands in many rows is held once and no offset overflows.
fn texts(view: &mut StringViewBuilder, rows: usize, data: &ColumnData) {
    match data {
        ColumnData::Texts(offsets, bytes, valid) => {
            for row in 0..rows {
                let text = std::str::from_utf8(&bytes[offsets[row] as usize..offsets[row + 1] as usize]);
                let shown = valid.as_ref().is_none_or(|valid| valid[row] != 0);
                view.append_option(text.ok().filter(|_| shown));
            }
        }
        ColumnData::Constant(Value::Str(text)) => (0..rows).for_each(|_| view.append_value(text)),
        _ => (0..rows).for_each(|_| view.append_null()),
    }
}

fn find<'a>(snapshot: &'a Snapshot, name: &str) -> PyResult<&'a Column> {
    snapshot.0.column(Table::Rows, name).map_err(raise)
}

/// A record batch of the columns over several groups, one behind the other.
#[pyfunction]
pub fn metadata_of(
    py: Python<'_>,
    snapshot: &Snapshot,
    groups: Vec<usize>,
    columns: Vec<String>,
) -> PyResult<ArrowArray> {
    py.detach(|| {
        let rows = |group: &usize| Ok(snapshot.0.rows(Table::Rows, *group).map_err(raise)? as usize);
        let counts: Vec<usize> = groups.iter().map(rows).collect::<PyResult<_>>()?;
        let mut arrays: Vec<(String, ArrayRef)> = Vec::new();
        for name in columns {
            let column = find(snapshot, &name)?;
            let each = groups
                .iter()
                .zip(&counts)
                .map(|(&group, &rows)| snapshot.0.metadata(group, column).map(|data| (rows, data)).map_err(raise));
            let array: ArrayRef = if column.kind == ColumnType::Str {
                let mut view = StringViewBuilder::new().with_deduplicate_strings();
                for part in each {
                    let (rows, data) = part?;
                    texts(&mut view, rows, &data);
                }
                Arc::new(view.finish())
            } else {
                let mut cells = Cells::default();
                for part in each {
                    let (rows, data) = part?;
                    cells.extend(column.kind, rows, data);
                }
                cells.finish(column.kind)
            };
            arrays.push((name, array));
        }
        ArrowArray::batch(counts.iter().sum(), arrays)
    })
}

/// A record batch with a row a group: least, greatest, nulls, nans, rows.
#[pyfunction]
pub fn column_zones(py: Python<'_>, snapshot: &Snapshot, column: &str) -> PyResult<ArrowArray> {
    let column = find(snapshot, column)?;
    py.detach(|| {
        let zones = snapshot.0.zones(column).map_err(raise)?;
        let bounds = |bound: fn(&lamina_store::reader::ColumnZone<'_>) -> Value| -> ArrayRef {
            if column.kind == ColumnType::Str {
                let mut view = StringViewBuilder::new();
                zones.iter().for_each(|zone| texts(&mut view, 1, &ColumnData::Constant(bound(zone))));
                return Arc::new(view.finish());
            }
            let mut cells = Cells::default();
            zones.iter().for_each(|zone| cells.extend(column.kind, 1, ColumnData::Constant(bound(zone))));
            cells.finish(column.kind)
        };
        let count = |count: Option<u64>| count.map(|count| i64::try_from(count).unwrap_or(i64::MAX));
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("least", bounds(|zone| zone.min.clone())),
            ("greatest", bounds(|zone| zone.max.clone())),
            ("nulls", Arc::new(zones.iter().map(|zone| count(zone.nulls)).collect::<Int64Array>())),
            ("nans", Arc::new(zones.iter().map(|zone| count(zone.nans)).collect::<Int64Array>())),
            ("rows", Arc::new(zones.iter().map(|zone| count(Some(zone.rows))).collect::<Int64Array>())),
        ];
        ArrowArray::batch(zones.len(), columns.into_iter().map(|(name, array)| (name.to_owned(), array)).collect())
    })
}

/// A record batch with a row a group, and the names of sites that its column `sites` counts in.
#[pyfunction]
pub fn group_table(py: Python<'_>, snapshot: &Snapshot) -> PyResult<(ArrowArray, Vec<Vec<String>>)> {
    py.detach(|| {
        let groups = snapshot.0.groups();
        let rows = groups.len();
        let mut integers: [Vec<i64>; 5] = std::array::from_fn(|_| Vec::with_capacity(rows));
        let mut steps: [Vec<Option<i64>>; 2] = [Vec::with_capacity(rows), Vec::with_capacity(rows)];
        let (mut numbers, mut sets) = (HashMap::new(), Vec::new());
        for info in groups {
            let name = |id: &u32| snapshot.0.site_by_id(*id).map(|site| site.name.clone());
            let set = *numbers.entry(info.sites).or_insert_with_key(|ids| {
                sets.push(ids.iter().filter_map(name).collect::<Vec<_>>());
                sets.len() as i64 - 1
            });
            let kind = if info.kind == Kind::Attached { 1 } else { 0 };
            let row = [info.first, info.last, info.rows as i64, kind, set];
            integers.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
            let (least, greatest) = info.steps.unzip();
            steps[0].push(least);
            steps[1].push(greatest);
        }
        let names = ["first", "last", "rows", "attached", "sites", "least_step", "greatest_step"];
        let integers = integers.into_iter().map(|values| Arc::new(Int64Array::from(values)) as ArrayRef);
        let steps = steps.into_iter().map(|values| Arc::new(Int64Array::from(values)) as ArrayRef);
        let columns = names.into_iter().map(str::to_owned).zip(integers.chain(steps)).collect();
        Ok((ArrowArray::batch(rows, columns)?, sets))
    })
}

/// Rows of a site wherever they lie: for each its group (negative: it has none, and is null) and position there.
#[pyfunction]
#[pyo3(signature = (snapshot, site, groups, positions, *, widen=true))]
pub fn vectors_at(
    py: Python<'_>,
    snapshot: &Snapshot,
    site: &str,
    groups: Bound<'_, PyAny>,
    positions: Bound<'_, PyAny>,
    widen: bool,
) -> PyResult<ArrowArray> {
    let (groups, positions) = (Bytes::get(&groups)?.as_i64s(), Bytes::get(&positions)?.as_i64s());
    let site = snapshot.0.site(site).map_err(raise)?;
    py.detach(|| {
        if groups.len() != positions.len() {
            return Err(raise(Error::schema("there are not as many groups as positions")));
        }
        let item = site.row_bytes() as usize;
        let mut bytes = MutableBuffer::with_capacity(groups.len() * item);
        let mut from = 0;
        for run in groups.chunk_by(|a, b| a == b) {
            let to = from + run.len();
            match usize::try_from(run[0]) {
                Ok(group) => {
                    let take = |rows: &[u8]| bytes.extend_from_slice(rows);
                    snapshot.0.stretches(group, site, &positions[from..to], take).map_err(raise)?;
                }
                Err(_) => bytes.extend_zeros(run.len() * item),
            }
            from = to;
        }
        let some = groups.iter().any(|&group| group < 0);
        let nulls = some.then(|| groups.iter().map(|&group| group >= 0).collect::<NullBuffer>());
        Ok(ArrowArray::new(&site.name, arrow::vectors(site, bytes, widen, nulls)?))
    })
}

/// Groups in the order in which they were written.
#[pyfunction]
pub fn in_order_of_writing(snapshot: &Snapshot, groups: Vec<usize>) -> Vec<usize> {
    snapshot.0.in_order_of_writing(groups)
}

/// The groups of which some rows are hidden, or show no value of some site.
#[pyfunction]
pub fn hiding_groups(snapshot: &Snapshot) -> Vec<usize> {
    snapshot.0.hiding_groups()
}
