//! What a run holds, in a form that can be compared: rows go by what was recorded, not by where they lie.

use super::history::{self, Known};
use lamina_format::record::{Column, Table};
use lamina_format::{ColumnType, Value, checksum};
use lamina_store::Snapshot;
use lamina_store::reader::{ColumnData, Kind, Mask};
use std::collections::BTreeMap;

/// Which row: its step, and its place in the append that made it.
pub type Identity = (i64, i64);

/// What a row holds: sites of its own, and metadata.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    pub sites: BTreeMap<String, String>,
    pub cells: Vec<String>,
}

/// What is there of one writer, or of one of its calls.
#[derive(Clone, Default, PartialEq)]
pub struct View {
    pub rows: BTreeMap<Identity, Row>,
    /// Values of further sites for rows of any writer.
    pub attached: BTreeMap<(Identity, String), String>,
    pub examples: Vec<String>,
    /// Step and value.
    pub metrics: Vec<(i64, String)>,
    pub tensors: BTreeMap<(i64, String), String>,
}

/// What a run shows: of each writer, and the names of rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    pub views: Vec<View>,
    pub names: BTreeMap<i64, Identity>,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let row = |(identity, row): (&Identity, &Row)| {
            let sites: Vec<String> = row.sites.keys().map(|site| site.chars().take(20).collect()).collect();
            format!("{identity:?} {}", sites.join(" "))
        };
        let rows: Vec<_> = self.rows.iter().map(row).collect();
        let attached: Vec<_> = self.attached.keys().collect();
        let (examples, tensors) = (self.examples.len(), self.tensors.keys().collect::<Vec<_>>());
        write!(f, "rows {rows:?}, attached {attached:?}, {examples} examples, ")?;
        write!(f, "metrics {:?}, tensors {tensors:?}", self.metrics)
    }
}

/// A column's name, type and values: one a row, or the same for all.
pub type Cells<'a> = (&'a str, ColumnType, Vec<Value>);

pub fn brief(bytes: &[u8]) -> String {
    let shown = if bytes.len() > 32 { checksum::hash(bytes).to_vec() } else { bytes.to_vec() };
    shown.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn shown(value: &Value) -> String {
    // bits, not values
    if let Value::Float(x) = value { format!("{:x}", x.to_bits()) } else { format!("{value:?}") }
}

/// The cells of a row that have a value, by name.
pub fn cells_of(columns: &[Cells], row: usize) -> Vec<String> {
    let one = |(name, _, values): &Cells| {
        let value = if values.len() == 1 { &values[0] } else { &values[row] };
        (*value != Value::Null).then(|| format!("{name}={}", shown(value)))
    };
    let mut cells: Vec<String> = columns.iter().filter_map(one).collect();
    cells.sort();
    cells
}

/// Step and place of a row.
pub fn identity(columns: &[Cells], row: usize) -> Option<Identity> {
    let int = |wanted: &str| {
        let (.., values) = columns.iter().find(|(name, ..)| *name == wanted)?;
        match if values.len() == 1 { values.first() } else { values.get(row) } {
            Some(Value::Int(x)) => Some(*x),
            _ => None,
        }
    };
    Some((int("step")?, int("at")?))
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

fn text(error: lamina_format::Error) -> String {
    error.to_string()
}

/// Values of the sites of a group, those that are hidden left out: by row and site.
fn values(snapshot: &Snapshot, index: usize, sites: &[u32], rows: u64) -> Result<Vec<Vec<(String, String)>>, String> {
    let mut all = vec![Vec::new(); rows as usize];
    for id in sites {
        let site = snapshot.site_by_id(*id).ok_or_else(|| format!("site {id} is not declared"))?;
        let item = site.row_bytes() as usize;
        let mut bytes = vec![0; rows as usize * item];
        if history::is_codes(&site.name) {
            bytes = history::dense(&snapshot.codes(index, site).and_then(|codes| codes.all()).map_err(text)?, item / 2);
        } else {
            snapshot.read(index, site, &mut bytes).map_err(text)?;
        }
        let hidden = snapshot.hidden(index, Some(site)).map_err(text)?;
        for (row, value) in bytes.chunks(item).enumerate().filter(|(row, _)| !hides(&hidden, *row)) {
            all[row].push((site.name.clone(), brief(value)));
        }
    }
    Ok(all)
}

fn hides(mask: &Mask, row: usize) -> bool {
    match mask {
        Mask::None => false,
        Mask::All => true,
        Mask::Some(hidden) => hidden[row] != 0,
    }
}

/// What a run shows. Values of rows that are not there are passed over.
pub fn found(snapshot: &Snapshot, known: &Known) -> Result<Found, String> {
    let mut found = Found { views: vec![View::default(); known.writers.len()], names: BTreeMap::new() };
    let slot_of = |ordinal: u32| {
        let slot = known.writers.iter().position(|writer| writer.ordinal == Some(ordinal));
        slot.ok_or_else(|| format!("rows of writer {ordinal}, which nobody has"))
    };
    for (index, group) in snapshot.groups().iter().enumerate().filter(|(_, group)| group.kind != Kind::Attached) {
        let slot = slot_of((group.first >> 40) as u32)?;
        let columns = snapshot.columns_of(Table::Rows, index).map_err(text)?;
        let read = columns.into_iter().map(|column| cells(snapshot, index, group.rows, column));
        let read = read.collect::<Result<Vec<_>, _>>()?;
        let names = snapshot.names(index).map_err(text)?;
        for (row, sites) in values(snapshot, index, &group.sites, group.rows)?.into_iter().enumerate() {
            if sites.is_empty() {
                continue;
            }
            let identity = identity(&read, row).ok_or("a row without its step or place")?;
            let holds = Row { sites: sites.into_iter().collect(), cells: cells_of(&read, row) };
            if found.names.insert(names[row], identity).is_some() {
                return Err(format!("row {} is there twice", names[row]));
            }
            if found.views[slot].rows.insert(identity, holds).is_some() {
                return Err(format!("row {identity:?} is there twice"));
            }
        }
    }
    for (index, group) in snapshot.groups().iter().enumerate().filter(|(_, group)| group.kind == Kind::Attached) {
        let names = snapshot.names(index).map_err(text)?;
        for (row, sites) in values(snapshot, index, &group.sites, group.rows)?.into_iter().enumerate() {
            let Some(&identity) = found.names.get(&names[row]) else { continue };
            for (site, value) in sites {
                let slot = history::attached_by(&site).ok_or_else(|| format!("nobody attached {site}"))?;
                if found.views[slot].attached.insert((identity, site), value).is_some() {
                    return Err(format!("row {identity:?} has two values of a site"));
                }
            }
        }
    }
    for index in 0..snapshot.example_groups() {
        let rows = snapshot.rows(Table::Examples, index).map_err(text)?;
        let columns = snapshot.columns_of(Table::Examples, index).map_err(text)?;
        let read = columns.into_iter().map(|column| cells(snapshot, index, rows, column));
        let read = read.collect::<Result<Vec<_>, _>>()?;
        let example = read.iter().find(|(name, ..)| *name == "example").map(|(.., values)| values[0].clone());
        let Some(Value::Int(example)) = example else { return Err("examples without a key".to_owned()) };
        found.views[(example / 100_000) as usize]
            .examples
            .extend((0..rows as usize).map(|row| cells_of(&read, row).join(";")));
    }
    let metrics = snapshot.metrics();
    for at in 0..metrics.steps.len() {
        let slot = metrics.ranks[at].ok_or("a metric without a rank")? as usize;
        let (step, name) = (metrics.steps[at], &metrics.words[metrics.names[at] as usize]);
        found.views[slot].metrics.push((step, metric(name, metrics.values[at])));
    }
    for (step, parts) in snapshot.checkpoints() {
        for part in parts {
            for (index, tensor) in part.tensors().iter().enumerate() {
                let mut bytes = vec![0; tensor.bytes as usize];
                snapshot.saved_tensor(step, part.name, index, &mut bytes).map_err(text)?;
                let name = tensor.spec.name.clone();
                found.views[step as usize / 1000].tensors.insert((step, name), brief(&bytes));
            }
        }
    }
    Ok(found)
}

pub fn metric(name: &str, value: f64) -> String {
    format!("{name} {:x}", value.to_bits())
}
