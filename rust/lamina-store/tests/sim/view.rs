//! What a run holds of one writer, in a form that can be compared.

use super::history::{self, Call, Known};
use lamina_format::record::{Column, Table};
use lamina_format::{ColumnType, Value, checksum};
use lamina_store::Snapshot;
use lamina_store::reader::ColumnData;
use std::collections::BTreeMap;

/// Rows by the names of their sites, in order of their own names; examples; metrics; tensors of checkpoints.
#[derive(Clone, Default, PartialEq)]
pub struct View {
    rows: BTreeMap<String, Vec<String>>,
    examples: Vec<String>,
    metrics: Vec<String>,
    tensors: BTreeMap<(i64, String), String>,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let short = |set: &String| set.chars().take(40).collect::<String>();
        let rows: Vec<_> = self.rows.iter().map(|(set, rows)| (short(set), rows.len())).collect();
        let tensors: Vec<_> = self.tensors.keys().collect();
        write!(f, "rows {rows:?}, {} examples, metrics {:?}, tensors {tensors:?}", self.examples.len(), self.metrics)
    }
}

fn brief(bytes: &[u8]) -> String {
    let shown = if bytes.len() > 32 { checksum::hash(bytes).to_vec() } else { bytes.to_vec() };
    shown.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn shown(value: &Value) -> String {
    // bits, not values
    if let Value::Float(x) = value { format!("{:x}", x.to_bits()) } else { format!("{value:?}") }
}

type Cells<'a> = (&'a str, ColumnType, Vec<Value>);

impl View {
    pub fn add_rows(&mut self, rows: u64, sites: &[(Vec<u8>, String)], columns: &[Cells]) {
        self.add(Table::Rows, rows, sites, columns);
    }

    /// Adds rows; a column has one value a row, or the same for all.
    pub fn add(&mut self, table: Table, rows: u64, sites: &[(Vec<u8>, String)], columns: &[Cells]) {
        let mut sites: Vec<&(Vec<u8>, String)> = sites.iter().collect();
        sites.sort_by_key(|(_, name)| name);
        let names: Vec<&str> = sites.iter().map(|(_, name)| name.as_str()).collect();
        let to = match table {
            Table::Rows => self.rows.entry(names.join(" ")).or_default(),
            _ => &mut self.examples,
        };
        for row in 0..rows as usize {
            let mut text = String::new();
            for (bytes, _) in &sites {
                let item = bytes.len() / rows as usize;
                text += &brief(&bytes[row * item..(row + 1) * item]);
                text += ";";
            }
            let mut cells: Vec<String> = Vec::new();
            for (name, _, values) in columns {
                let value = if values.len() == 1 { &values[0] } else { &values[row] };
                if *value != Value::Null {
                    cells.push(format!("{name}={}", shown(value)));
                }
            }
            cells.sort();
            to.push(text + &cells.join(";"));
        }
    }

    pub fn add_metric(&mut self, step: i64, name: &str, value: f64) {
        self.metrics.push(format!("{step} {name} {:x}", value.to_bits()));
    }

    pub fn add_tensor(&mut self, step: i64, name: &str, bytes: &[u8]) {
        self.tensors.insert((step, name.to_owned()), brief(bytes));
    }
}

fn cells<'a>(snapshot: &Snapshot, index: usize, rows: u64, column: &'a Column) -> Result<Cells<'a>, String> {
    let data = snapshot.metadata(index, column).map_err(|error| error.to_string())?;
    let there = |valid: &Option<Vec<u8>>, row: usize| valid.as_ref().is_none_or(|valid| valid[row] != 0);
    let values = match data {
        ColumnData::Constant(value) => vec![value; rows as usize],
        ColumnData::Fixed(bytes, valid) => {
            let item = bytes.len() / rows as usize;
            let value = |row: usize| {
                let word = || bytes[8 * row..8 * row + 8].try_into().unwrap();
                match column.kind {
                    _ if !there(&valid, row) => Value::Null,
                    ColumnType::Float => Value::Float(f64::from_le_bytes(word())),
                    _ if item == 1 => Value::Bool(bytes[row] != 0),
                    _ => Value::Int(i64::from_le_bytes(word())),
                }
            };
            (0..rows as usize).map(value).collect()
        }
        ColumnData::Texts(offsets, bytes, valid) => {
            let text = |row: usize| bytes[offsets[row] as usize..offsets[row + 1] as usize].to_vec();
            let value = |row: usize| Value::Str(String::from_utf8(text(row)).unwrap());
            (0..rows as usize).map(|row| if there(&valid, row) { value(row) } else { Value::Null }).collect()
        }
    };
    Ok((&column.name, column.kind, values))
}

/// What the run holds of each writer.
pub fn views(snapshot: &Snapshot, known: &Known) -> Result<Vec<View>, String> {
    let text = |error: lamina_format::Error| error.to_string();
    let mut views = vec![View::default(); known.writers.len()];
    let mut next = BTreeMap::new();
    for (index, group) in snapshot.groups().iter().enumerate() {
        let ordinal = (group.first >> 40) as u32;
        let slot = known.writers.iter().position(|writer| writer.ordinal == Some(ordinal));
        let slot = slot.ok_or_else(|| format!("rows of writer {ordinal}, which nobody has"))?;
        // names are given in order; those between are the examples'
        let least = next.insert(ordinal, group.first + group.rows as i64).unwrap_or(0);
        if group.first < least {
            return Err(format!("row {} is there twice", group.first));
        }
        let mut sites = Vec::new();
        for id in &group.sites {
            let site = snapshot.site_by_id(*id).ok_or_else(|| format!("site {id} is not declared"))?;
            let mut bytes = vec![0; (group.rows * site.row_bytes()) as usize];
            snapshot.gather(index, site, None, &mut bytes).map_err(text)?;
            sites.push((bytes, site.name.clone()));
        }
        let columns = snapshot.columns_of(Table::Rows, index).map_err(text)?;
        let read = columns.into_iter().map(|column| cells(snapshot, index, group.rows, column));
        views[slot].add_rows(group.rows, &sites, &read.collect::<Result<Vec<_>, _>>()?);
    }
    for index in 0..snapshot.example_groups() {
        let rows = snapshot.rows(Table::Examples, index).map_err(text)?;
        let columns = snapshot.columns_of(Table::Examples, index).map_err(text)?;
        let read = columns.into_iter().map(|column| cells(snapshot, index, rows, column));
        let read = read.collect::<Result<Vec<_>, _>>()?;
        let example = read.iter().find(|(name, ..)| *name == "example").map(|(.., values)| values[0].clone());
        let Some(Value::Int(example)) = example else { return Err("examples without a key".to_owned()) };
        views[(example / 100_000) as usize].add(Table::Examples, rows, &[], &read);
    }
    let metrics = snapshot.metrics();
    for at in 0..metrics.steps.len() {
        let slot = metrics.ranks[at].ok_or("a metric without a rank")? as usize;
        views[slot].add_metric(metrics.steps[at], &metrics.words[metrics.names[at] as usize], metrics.values[at]);
    }
    for (step, parts) in snapshot.checkpoints() {
        for part in parts {
            for (index, tensor) in part.tensors.iter().enumerate() {
                let mut bytes = vec![0; tensor.bytes as usize];
                snapshot.saved_tensor(step, &part.name, index, &mut bytes).map_err(text)?;
                views[step as usize / 1000].add_tensor(step, &tensor.spec.name, &bytes);
            }
        }
    }
    Ok(views)
}

/// How many calls of each writer are there, or what is wrong: all that were acknowledged must be, and nothing that
/// was not staged.
pub fn prefixes(snapshot: &Snapshot, known: &Known, calls: &[Vec<Call>]) -> Result<Vec<usize>, String> {
    for problem in snapshot.problems() {
        if !problem.message.contains("never acknowledged") {
            return Err(format!("a problem: {problem}"));
        }
    }
    let views = views(snapshot, known)?;
    let mut found = Vec::new();
    for (slot, (view, progress)) in views.iter().zip(&known.writers).enumerate() {
        let fits = |count: &usize| history::expected(slot, &calls[slot][..*count]) == *view;
        let Some(count) = (progress.acknowledged..=progress.staged).find(fits) else {
            let least = history::expected(slot, &calls[slot][..progress.acknowledged]);
            return Err(format!("writer {slot} ({progress:?})\n  holds {view:?}\n  was acknowledged {least:?}"));
        };
        found.push(count);
        let Some(ordinal) = progress.ordinal else { continue };
        let info = snapshot.writers().iter().find(|info| info.ordinal == ordinal);
        let open = info.is_some_and(|info| info.open.is_some());
        let closed = info.is_some_and(|info| info.close.is_some());
        if !open || progress.closed && !closed {
            return Err(format!(
                "writer {slot} was opened{}, its log says otherwise",
                [" and closed", ""][usize::from(open)]
            ));
        }
    }
    Ok(found)
}
