//! What writers did and were told: the truth that a run is compared with.

use super::disk::{Event, mix};
use super::hide::{Hide, What};
use super::view::{self, View};
use lamina_format::record::TensorSpec;
use lamina_format::sparse::Codes;
use lamina_format::{ColumnType, DType, Value};
use lamina_store::writer::{Bounds, Entries, Twice, Values};
use std::sync::Arc;

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
    /// Something is about to be hidden.
    Hiding {
        number: usize,
        what: Arc<What>,
    },
    /// It is hidden, durably.
    Hidden {
        number: usize,
    },
}

/// One call of a writer. What it holds follows from its tag.
#[derive(Clone, Debug)]
pub enum Call {
    Append {
        set: Set,
        rows: u64,
    },
    /// A site for some of the rows that are there, of any writer.
    Attach {
        rows: usize,
    },
    Examples {
        rows: u64,
    },
    Log,
    Save {
        bytes: u64,
    },
    /// A checkpoint of which this writer and another store halves.
    Divided {
        bytes: u64,
    },
}

/// A call, and what it wrote.
#[derive(Clone)]
pub struct Called {
    pub call: Call,
    pub wrote: Arc<View>,
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

/// The acknowledged and the staged calls of every writer, and what was hidden.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub created: bool,
    pub writers: Vec<Progress>,
    /// By number; those that were not begun yet are not there.
    pub hides: Vec<Option<Hide>>,
    /// Goes on with every note.
    clock: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Progress {
    pub ordinal: Option<u32>,
    /// When each call was staged.
    pub staged: Vec<u64>,
    /// When each call was acknowledged; these come first.
    pub acknowledged: Vec<u64>,
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
        self.clock += 1;
        let now = self.clock;
        match note {
            Note::Created => self.created = true,
            Note::Opened { slot, ordinal } => self.writer(*slot).ordinal = Some(*ordinal),
            Note::Staged { slot } => self.writer(*slot).staged.push(now),
            Note::Acknowledged { slot, calls } => self.writer(*slot).acknowledge(*calls, now),
            Note::Closed { slot } => {
                let writer = self.writer(*slot);
                writer.acknowledge(writer.staged.len(), now);
                writer.closed = true;
            }
            Note::Hiding { number, what } => {
                self.hides.resize_with(self.hides.len().max(number + 1), || None);
                self.hides[*number] = Some(Hide { what: Arc::clone(what), begun: now, done: None });
            }
            Note::Hidden { number } => {
                if let Some(hide) = &mut self.hides[*number] {
                    hide.done = Some(now);
                }
            }
        }
    }

    fn writer(&mut self, slot: usize) -> &mut Progress {
        self.writers.resize_with(self.writers.len().max(slot + 1), Progress::default);
        &mut self.writers[slot]
    }
}

impl Progress {
    fn acknowledge(&mut self, calls: usize, now: u64) {
        self.acknowledged.resize(calls.max(self.acknowledged.len()), now);
    }

    /// One call, acknowledged before all others: all that there is of the writer, once the power is back.
    pub fn settled(&self) -> Self {
        Self { staged: vec![0], acknowledged: vec![0], ..self.clone() }
    }
}

/// A number that no other call has: the step of what it records.
pub fn tag(slot: usize, call: usize) -> i64 {
    1000 * slot as i64 + call as i64
}

/// The writer and the call of a step.
pub fn untag(step: i64) -> (usize, usize) {
    (step as usize / 1000, step as usize % 1000)
}

/// The site that a writer attaches, and the reverse.
pub fn attached_site(slot: usize) -> String {
    format!("code.{slot}")
}

pub fn attached_by(site: &str) -> Option<usize> {
    site.strip_prefix("code.").and_then(|slot| slot.parse().ok())
}

pub fn bytes(tag: i64, name: &str, count: u64) -> Vec<u8> {
    let hash = name.bytes().fold(7, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    // no two rows are alike, nor two sectors
    let mut bytes: Vec<u8> =
        (0..count.div_ceil(8)).flat_map(|at| mix(tag as u64, hash, at).to_le_bytes()).take(count as usize).collect();
    if is_codes(name) {
        // a third is active; a zero has no sign
        let inactive = |unit: &[u8; 2]| !unit[0].is_multiple_of(3) || unit[1] & 0x7f == 0 && unit[0] == 0;
        bytes.as_chunks_mut().0.iter_mut().filter(|unit| inactive(unit)).for_each(|unit| *unit = [0; 2]);
    }
    bytes
}

/// Whether a site's rows are sparse codes: halves, of which most are zero.
pub fn is_codes(site: &str) -> bool {
    site == "sae" || attached_by(site).is_some_and(|slot| slot % 2 == 1)
}

/// Rows of `width` halves as codes.
pub fn codes(rows: &[u8], width: usize) -> Codes {
    let ids: Vec<u8> = (0..rows.len() / 2).flat_map(|at| ((at % width) as i32).to_le_bytes()).collect();
    let bounds = Bounds::Each(width);
    let entries = Entries { bounds, id_dtype: DType::I32, ids: &ids, dtype: DType::F16, values: rows };
    entries.codes(rows.len() / 2 / width, width as u64, Twice::Refused).unwrap()
}

/// The reverse.
pub fn dense(codes: &Codes, width: usize) -> Vec<u8> {
    let mut rows = vec![0; 2 * codes.rows() * width];
    for row in 0..codes.rows() {
        for (at, &id) in (codes.indptr[row] as usize..).zip(codes.ids_of(row)) {
            let to = 2 * (row * width + id as usize);
            rows[to..to + 2].copy_from_slice(&codes.values[2 * at..2 * at + 2]);
        }
    }
    rows
}

/// A site's name, type and item shape.
pub fn sites(set: Set) -> Vec<(String, DType, Vec<u64>)> {
    let site = |name: &str, dtype, shape: &[u64]| (name.to_owned(), dtype, shape.to_vec());
    match set {
        Set::Plain => vec![site("x", DType::F32, &[4])],
        Set::Mixed => {
            vec![site("x", DType::F32, &[4]), site("blocks.0.output", DType::F16, &[3]), site("sae", DType::F16, &[40])]
        }
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
    columns.push(("at", ColumnType::Int, each(&Value::Int)));
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
    let spec = |name: &str, dtype, length| TensorSpec { name: name.to_owned(), dtype, shape: vec![length] };
    vec![
        (spec("shared", DType::U8, 3000), bytes(-1, "shared", 3000)),
        (spec("own", DType::U8, count), bytes(tag, "own", count)),
        (spec("trained", DType::F32, 250), trained(tag)),
    ]
}

/// Numbers from 1 to 2 that differ a little from save to save: what differences are made for.
fn trained(tag: i64) -> Vec<u8> {
    let of =
        |tag| bytes(tag, "trained", 1000).as_chunks().0.iter().map(|&x| u32::from_le_bytes(x)).collect::<Vec<u32>>();
    let elements = of(-1).into_iter().zip(of(tag)).map(|(all, own)| 0x3f80_0000 | all >> 10 << 1 | own >> 31);
    elements.flat_map(u32::to_le_bytes).collect()
}

/// What a call writes; of rows that something is attached to this follows from the rows.
pub fn wrote(tag: i64, call: &Call) -> View {
    let mut view = View::default();
    match call {
        Call::Append { set, rows } => {
            let columns = columns(tag, *set, *rows);
            let data: Vec<(String, Vec<u8>)> = sites(*set)
                .into_iter()
                .map(|(name, dtype, shape)| {
                    let item = shape.iter().product::<u64>() * dtype.size();
                    let bytes = bytes(tag, &name, rows * item);
                    (name, bytes)
                })
                .collect();
            for row in 0..*rows as usize {
                let value = |bytes: &[u8]| view::brief(bytes.chunks(bytes.len() / *rows as usize).nth(row).unwrap());
                let sites = data.iter().map(|(name, bytes)| (name.clone(), value(bytes))).collect();
                let holds = view::Row { sites, cells: view::cells_of(&columns, row) };
                view.rows.insert(view::identity(&columns, row).unwrap(), holds);
            }
        }
        Call::Attach { .. } => {}
        Call::Examples { rows } => {
            let columns = example_columns(tag, *rows);
            view.examples.extend((0..*rows as usize).map(|row| view::cells_of(&columns, row).join(";")));
        }
        Call::Log => view.metrics.push((tag, view::metric("loss", tag as f64 + 0.5))),
        Call::Save { bytes } | Call::Divided { bytes } => {
            let tensors = tensors(tag, *bytes).into_iter();
            view.tensors.extend(tensors.map(|(spec, bytes)| ((tag, spec.name), view::brief(&bytes))));
        }
    }
    view
}
