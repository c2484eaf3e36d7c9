//! What the group records say of a column, so that a reader may pass groups over.

use super::Snapshot;
use super::group::StoredGroup;
use super::hidden::Mask;
use lamina_format::record::Column;
use lamina_format::{Result, Value};

const NULL: &Value = &Value::Null;

/// What lies in a column of a group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ColumnZone<'a> {
    /// Nothing in the column is less; null if that is not known, or if there is neither a number nor a text.
    pub min: &'a Value,
    /// Nothing but NaN is greater; likewise.
    pub max: &'a Value,
    /// Rows without a value; None if nothing is known of the column.
    pub nulls: Option<u64>,
    /// Rows whose value is NaN; likewise.
    pub nans: Option<u64>,
    /// Rows.
    pub rows: u64,
}

impl Snapshot {
    /// The column's zones, in the order of [`Snapshot::groups`].
    pub fn zones(&self, column: &Column) -> Result<Vec<ColumnZone<'_>>> {
        (0..self.groups.len()).map(|index| self.zone(index, column)).collect()
    }

    fn zone(&self, index: usize, column: &Column) -> Result<ColumnZone<'_>> {
        let record = &self.groups[index].record;
        let unknown = ColumnZone { min: NULL, max: NULL, nulls: None, nans: None, rows: record.rows };
        if let Some(value) = self.constant(index, column)? {
            return Ok(match value {
                Value::Null => ColumnZone { nulls: Some(record.rows), nans: Some(0), ..unknown },
                Value::Float(x) if x.is_nan() => ColumnZone { nulls: Some(0), nans: Some(record.rows), ..unknown },
                value => ColumnZone { min: value, max: value, nulls: Some(0), nans: Some(0), ..unknown },
            });
        }
        let Some(zone) = record.zones.iter().find(|zone| zone.id == column.id) else { return Ok(unknown) };
        let typed = |value: &Value| value.fits(column.kind);
        Ok(ColumnZone {
            min: if typed(&zone.min) { &zone.min } else { NULL },
            max: if typed(&zone.max) { &zone.max } else { NULL },
            nulls: Some(zone.nulls),
            nans: Some(zone.nans),
            rows: record.rows,
        })
    }

    /// Groups in the order in which they were written: by writer, and those of a writer as they follow each other.
    pub fn in_order_of_writing(&self, mut groups: Vec<usize>) -> Vec<usize> {
        // a group that was compacted lies in another's file, and is its writer's still
        let place = |group: &StoredGroup| (group.origin.writer(), group.record.file.clone(), group.record.offset);
        groups.sort_by_cached_key(|&index| self.groups.get(index).map(place));
        groups
    }

    /// The groups of which some rows are hidden, or show no value of some site.
    pub fn hiding_groups(&self) -> Vec<usize> {
        let hides = |group: &StoredGroup| group.hidden.rows != Mask::None || !group.hidden.sites.is_empty();
        (0..self.groups.len()).filter(|&index| hides(&self.groups[index])).collect()
    }
}
