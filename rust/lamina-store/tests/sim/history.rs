//! What writers did and were told: the truth that a run is compared with.

use super::disk::{Event, mix};
use super::view::View;
use lamina_format::record::{Table, TensorSpec};
use lamina_format::{ColumnType, DType, Value};
use lamina_store::writer::Values;

/// What was known to the caller, written between the calls that reached the disk.
#[derive(Clone, Debug)]
pub enum Note {
    Created,
    Opened {
        slot: usize,
        ordinal: u32,
    },
    Staged {
        slot: usize,
    },
    /// So many of the writer's calls are durable.
    Acknowledged {
        slot: usize,
        calls: usize,
    },
    Closed {
        slot: usize,
    },
}

/// One call of a writer. What it holds follows from its tag.
#[derive(Clone, Debug)]
pub enum Call {
    Append { set: Set, rows: u64 },
    Examples { rows: u64 },
    Log,
    Save { bytes: u64 },
}

/// Sites and columns that are appended together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Set {
    Plain,
    Mixed,
    Scalar,
    /// Appended after a power cut.
    After,
    /// Names so long that sixteen groups fill the header of a segment.
    Wide,
    /// Rows of 64 KiB: what exceeds a buffer is written past the page cache.
    Large,
}

/// The acknowledged and the staged calls of a writer.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub created: bool,
    pub writers: Vec<Progress>,
}

#[derive(Clone, Debug, Default)]
pub struct Progress {
    pub ordinal: Option<u32>,
    pub staged: usize,
    pub acknowledged: usize,
    pub closed: bool,
}

impl Known {
    pub fn learn_all(&mut self, trace: &[Event]) {
        for event in trace {
            if let Event::Note(note) = event {
                self.learn(note);
            }
        }
    }

    pub fn learn(&mut self, note: &Note) {
        let (Note::Opened { slot, .. }
        | Note::Staged { slot }
        | Note::Acknowledged { slot, .. }
        | Note::Closed { slot }) = *note
        else {
            self.created = true;
            return;
        };
        if self.writers.len() <= slot {
            self.writers.resize(slot + 1, Progress::default());
        }
        let writer = &mut self.writers[slot];
        match *note {
            Note::Opened { ordinal, .. } => writer.ordinal = Some(ordinal),
            Note::Staged { .. } => writer.staged += 1,
            Note::Acknowledged { calls, .. } => writer.acknowledged = writer.acknowledged.max(calls),
            Note::Closed { .. } => (writer.acknowledged, writer.closed) = (writer.staged, true),
            Note::Created => {}
        }
    }
}

/// A number that no other call has: the step of what it records.
pub fn tag(slot: usize, call: usize) -> i64 {
    1000 * slot as i64 + call as i64
}

pub fn bytes(tag: i64, name: &str, count: u64) -> Vec<u8> {
    let name = name.bytes().fold(7, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    // no two sectors are alike
    let word = |at: u64| mix(tag as u64, name, at).to_le_bytes();
    (0..count.div_ceil(256)).flat_map(|at| word(at).repeat(32)).take(count as usize).collect()
}

/// A site's name, type and item shape.
pub fn sites(set: Set) -> Vec<(String, DType, Vec<u64>)> {
    let site = |name: &str, dtype, shape: &[u64]| (name.to_owned(), dtype, shape.to_vec());
    match set {
        Set::Plain => vec![site("x", DType::F32, &[4])],
        Set::Mixed => vec![site("x", DType::F32, &[4]), site("blocks.0.output", DType::F16, &[3])],
        Set::Scalar => vec![site("loss", DType::F64, &[])],
        Set::After => vec![site("after", DType::I16, &[2]), site("x", DType::F32, &[4])],
        Set::Wide => (0..110).map(|at| (format!("{at:0500}"), DType::U8, vec![])).collect(),
        Set::Large => vec![site("large", DType::U8, &[1 << 16])],
    }
}

/// A column's name, type and values: one a row, or the same for all.
pub fn columns(tag: i64, set: Set, rows: u64) -> Vec<(&'static str, ColumnType, Vec<Value>)> {
    let each = |value: &dyn Fn(i64) -> Value| (0..rows as i64).map(value).collect();
    let mut columns = vec![("step", ColumnType::Int, vec![Value::Int(tag)])];
    if set == Set::After {
        columns.insert(0, ("late", ColumnType::Bool, each(&|row| Value::Bool(row == 0))));
    }
    let name = |row| if row % 2 == 0 { Value::Str(format!("row {row} of {tag}")) } else { Value::Null };
    match set {
        Set::Plain => columns.push(("name", ColumnType::Str, each(&name))),
        Set::Mixed => {
            let score = |row| [Value::Float(f64::NAN), Value::Null, Value::Float(-0.0)][row as usize % 3].clone();
            columns.push(("position", ColumnType::Int, each(&|row| Value::Int(row - tag))));
            columns.push(("score", ColumnType::Float, each(&score)));
            columns.push(("flag", ColumnType::Bool, each(&|row| Value::Bool((row + tag) % 3 == 0))));
        }
        Set::Scalar | Set::After | Set::Wide | Set::Large => {}
    }
    columns
}

pub fn example_columns(tag: i64, rows: u64) -> Vec<(&'static str, ColumnType, Vec<Value>)> {
    let each = |value: &dyn Fn(i64) -> Value| (0..rows as i64).map(value).collect();
    vec![
        ("example", ColumnType::Int, each(&|row| Value::Int(100 * tag + row))),
        ("label", ColumnType::Str, each(&|row| Value::Str(format!("label {row} of {tag}")))),
    ]
}

/// The values as the writer takes them, and which of them are there.
pub fn input(kind: ColumnType, values: &[Value]) -> (Values<'static>, Option<Vec<u8>>) {
    let text = |value: &Value| if let Value::Str(text) = value { Some(text.clone()) } else { None };
    if let ([value], ColumnType::Int) = (values, kind) {
        return (Values::Constant(value.clone()), None);
    }
    let bytes = |value: &Value| match value {
        Value::Int(x) => x.to_le_bytes().to_vec(),
        Value::Float(x) => x.to_le_bytes().to_vec(),
        Value::Bool(x) => vec![u8::from(*x)],
        _ => vec![0; if kind == ColumnType::Bool { 1 } else { 8 }],
    };
    if kind == ColumnType::Str {
        return (Values::Texts(values.iter().map(text).collect()), None);
    }
    let valid = values.iter().map(|value| u8::from(*value != Value::Null)).collect();
    // the bytes live as long as the test
    (Values::Fixed(Box::leak(values.iter().flat_map(bytes).collect::<Vec<u8>>().into())), Some(valid))
}

/// The tensors of a save: one that all writers share, one of its own.
pub fn tensors(tag: i64, count: u64) -> Vec<(TensorSpec, Vec<u8>)> {
    let spec = |name: &str, length| TensorSpec { name: name.to_owned(), dtype: DType::U8, shape: vec![length] };
    vec![(spec("shared", 3000), bytes(-1, "shared", 3000)), (spec("own", count), bytes(tag, "own", count))]
}

/// What the first calls of a writer wrote.
pub fn expected(slot: usize, calls: &[Call]) -> View {
    let mut view = View::default();
    for (at, call) in calls.iter().enumerate() {
        let tag = tag(slot, at);
        match call {
            Call::Append { set, rows } => {
                let data: Vec<_> = sites(*set)
                    .into_iter()
                    .map(|(name, dtype, shape)| {
                        let item = shape.iter().product::<u64>() * dtype.size();
                        (bytes(tag, &name, rows * item), name)
                    })
                    .collect();
                view.add_rows(*rows, &data, &columns(tag, *set, *rows));
            }
            Call::Examples { rows } => view.add(Table::Examples, *rows, &[], &example_columns(tag, *rows)),
            Call::Log => view.add_metric(tag, "loss", tag as f64 + 0.5),
            Call::Save { bytes } => {
                for (spec, bytes) in tensors(tag, *bytes) {
                    view.add_tensor(tag, &spec.name, &bytes);
                }
            }
        }
    }
    view
}
