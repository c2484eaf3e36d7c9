//! Rows of groups that hold codes: which of them show a value, and of which steps they are.

use super::holds;
use crate::reader::{ColumnData, Mask, Snapshot, StoredGroup};
use lamina_format::record::{Column, Site, Table};
use lamina_format::{ColumnType, Result, Value};
use std::collections::HashMap;

/// Which rows of the groups that show some of a site show no value of it; groups that show all are left out.
pub fn unseen(snapshot: &Snapshot, site: &Site) -> Result<HashMap<usize, Mask>> {
    let (groups, _) = snapshot.of_rows();
    let mut found = HashMap::new();
    let mut attached = Vec::new();
    for (number, group) in groups.iter().enumerate().filter(|(_, group)| holds(group, site.id)) {
        match group.hidden.of_site(site.id) {
            Mask::All => {}
            _ if group.record.table == Table::Attached => attached.push(number),
            Mask::None => {}
            mask => drop(found.insert(number, mask)),
        }
    }
    // groups come in order of their first rows: those that reach into each other stand together
    let mut rest = &attached[..];
    while let Some(&first) = rest.first() {
        let (mut count, mut last) = (1, groups[first].record.span().1);
        while let Some(&next) = rest.get(count)
            && groups[next].record.first <= last
        {
            last = last.max(groups[next].record.span().1);
            count += 1;
        }
        let (together, behind) = rest.split_at(count);
        found.extend(of_attached(snapshot, site, together)?);
        rest = behind;
    }
    Ok(found)
}

/// The same of attached groups. Of a row's values that of the row's own group counts, else the one that was written first by
/// the lowest writer; and none does if the row itself is not shown.
fn of_attached(snapshot: &Snapshot, site: &Site, attached: &[usize]) -> Result<Vec<(usize, Mask)>> {
    let (groups, _) = snapshot.of_rows();
    let mut values: Vec<(i64, u32, u32)> = Vec::new();
    let order = snapshot.in_order_of_writing(attached.to_vec());
    for (rank, &number) in order.iter().enumerate() {
        let hidden = groups[number].hidden.of_site(site.id);
        let names = snapshot.names_of(&groups[number])?.into_iter().enumerate();
        values.extend(names.filter(|(row, _)| !hidden.hides(*row)).map(|(row, name)| (name, rank as u32, row as u32)));
    }
    values.sort_unstable();
    values.dedup_by_key(|value| value.0);
    let names: Vec<i64> = values.iter().map(|value| value.0).collect();
    let mut counts = vec![false; values.len()];
    each_own(snapshot, groups, &names, |at, group, row| {
        let has_own = holds(group, site.id) && !group.hidden.of_site(site.id).hides(row);
        counts[at] = !group.hidden.rows.hides(row) && !has_own;
    })?;
    let mut masks: Vec<Vec<u8>> = order.iter().map(|&number| vec![1; groups[number].record.rows as usize]).collect();
    for ((_, rank, row), _) in values.iter().zip(&counts).filter(|(_, counts)| **counts) {
        masks[*rank as usize][*row as usize] = 0;
    }
    let some = |(number, mask): (&usize, Vec<u8>)| match Mask::new(mask) {
        Mask::None => None,
        mask => Some((*number, mask)),
    };
    Ok(order.iter().zip(masks).filter_map(some).collect())
}

/// Of names that ascend, each that is a row of one of the groups that made rows: its place among the names, the group, and
/// the row's position there.
fn each_own<'a>(
    snapshot: &Snapshot,
    groups: impl IntoIterator<Item = &'a StoredGroup>,
    names: &[i64],
    mut each: impl FnMut(usize, &'a StoredGroup, usize),
) -> Result<()> {
    for group in groups.into_iter().filter(|group| group.record.table == Table::Rows) {
        let (first, last) = group.record.span();
        let from = names.partition_point(|&name| name < first);
        let to = from + names[from..].partition_point(|&name| name <= last);
        if from == to {
            continue;
        }
        if group.record.last.is_none() {
            (from..to).for_each(|at| each(at, group, (names[at] - first) as usize));
            continue;
        }
        for (row, name) in snapshot.names_of(group)?.into_iter().enumerate() {
            if let Ok(at) = names[from..to].binary_search(&name) {
                each(from + at, group, row);
            }
        }
    }
    Ok(())
}

/// The steps of rows that are counted through several groups: where each run of rows of one step ends, and the step.
#[derive(Default)]
pub struct Steps {
    runs: Vec<(u32, Option<i64>)>,
    /// Whether some step is less than one before, or missing.
    falls: bool,
    /// Whether the steps of some rows are not known.
    pub unknown: bool,
}

impl Steps {
    fn push(&mut self, rows: u32, step: Option<i64>) {
        let end = self.runs.last().map_or(0, |run| run.0) + rows;
        match self.runs.last_mut() {
            Some(last) if last.1 == step => last.0 = end,
            last => {
                self.falls |= step.is_none() || last.is_some_and(|last| last.1 > step);
                self.runs.push((end, step));
            }
        }
    }

    /// Adds the rows of a group.
    pub fn extend(&mut self, snapshot: &Snapshot, group: &StoredGroup) -> Result<()> {
        let rows = group.record.rows as u32;
        let column = snapshot.columns(Table::Rows).find(|column| column.name == "step");
        let Some(column) = column.filter(|column| column.kind == ColumnType::Int) else {
            self.push(rows, None);
            return Ok(());
        };
        if group.record.table == Table::Rows {
            return of_group(snapshot, group, column, |rows, step| self.push(rows, step));
        }
        let mut names: Vec<(i64, usize)> = snapshot.names_of(group)?.into_iter().zip(0..).collect();
        names.sort_unstable();
        let sorted: Vec<i64> = names.iter().map(|name| name.0).collect();
        let mut found: Vec<(usize, &StoredGroup, usize)> = Vec::new();
        let (groups, hidden) = snapshot.of_rows();
        each_own(snapshot, groups.iter().chain(hidden), &sorted, |at, own, row| found.push((names[at].1, own, row)))?;
        let mut steps: Vec<Option<i64>> = vec![None; names.len()];
        let mut known = 0;
        for of_own in found.chunk_by(|a, b| std::ptr::eq(a.1, b.1)) {
            let mut all = Vec::new();
            of_group(snapshot, of_own[0].1, column, |rows, step| all.resize(all.len() + rows as usize, step))?;
            of_own.iter().for_each(|&(at, _, row)| steps[at] = all[row]);
            known += of_own.len();
        }
        self.unknown |= known < names.len();
        steps.into_iter().for_each(|step| self.push(1, step));
        Ok(())
    }

    /// Least and greatest step of units whose rows ascend; the least is greater if none has one.
    pub fn bounds(&self, units: &[u64]) -> (i64, i64) {
        let row = |unit: u64| (unit >> 32) as u32;
        let at = |row: u32| self.runs.partition_point(|run| run.0 <= row);
        let (Some(&first), Some(&last)) = (units.first(), units.last()) else { return (i64::MAX, i64::MIN) };
        let (mut run, end) = (at(row(first)), at(row(last)));
        if !self.falls {
            let step = |run: usize| self.runs.get(run).and_then(|run| run.1);
            return step(run).zip(step(end)).unwrap_or((i64::MAX, i64::MIN));
        }
        let mut bounds = (i64::MAX, i64::MIN);
        let mut rest = units;
        while let (Some(&unit), Some(&(end, step))) = (rest.first(), self.runs.get(run)) {
            if row(unit) < end {
                if let Some(step) = step {
                    bounds = (bounds.0.min(step), bounds.1.max(step));
                }
                let passed = rest.iter().take(8).take_while(|&&unit| row(unit) < end).count();
                let passed = if passed == 8 { rest.partition_point(|&unit| row(unit) < end) } else { passed };
                rest = &rest[passed..];
            }
            run += 1;
            if let (Some(&unit), Some(next)) = (rest.first(), self.runs.get(run))
                && next.0 <= row(unit)
            {
                run += self.runs[run..].partition_point(|run| run.0 <= row(unit));
            }
        }
        bounds
    }
}

/// The steps of a group that made rows, as runs.
fn of_group(
    snapshot: &Snapshot,
    group: &StoredGroup,
    column: &Column,
    mut push: impl FnMut(u32, Option<i64>),
) -> Result<()> {
    match snapshot.column_of(group, column)? {
        ColumnData::Fixed(steps, valid) => {
            for (row, &bytes) in steps.as_chunks().0.iter().enumerate() {
                let given = valid.as_ref().is_none_or(|valid| valid[row] != 0);
                push(1, given.then(|| i64::from_le_bytes(bytes)));
            }
        }
        ColumnData::Constant(Value::Int(step)) => push(group.record.rows as u32, Some(step)),
        _ => push(group.record.rows as u32, None),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use lamina_format::posting::unit;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bounds_are_those_of_the_rows(
            runs in proptest::collection::vec((1u32..40, proptest::option::of(0i64..6)), 1..60),
            sorted in any::<bool>(), some in proptest::collection::btree_set(0u32..2000, 0..200),
        ) {
            let mut runs = runs;
            if sorted {
                runs.retain(|run| run.1.is_some());
                runs.sort_by_key(|run| run.1);
            }
            let mut steps = Steps::default();
            let mut all = Vec::new();
            for (rows, step) in runs {
                steps.push(rows, step);
                all.extend((0..rows).map(|_| step));
            }
            let rows: Vec<u32> = some.into_iter().filter(|&row| (row as usize) < all.len()).collect();
            let units: Vec<u64> = rows.iter().map(|&row| unit(row, 7)).collect();
            let of_rows = || rows.iter().filter_map(|&row| all[row as usize]);
            let wanted = (of_rows().min().unwrap_or(i64::MAX), of_rows().max().unwrap_or(i64::MIN));
            prop_assert_eq!(steps.bounds(&units), wanted);
        }
    }
}
