//! A metadata column while its row group is open.
//!
//! As long as every row has had the same value nothing is stored but that value and a count.

use lamina_format::record::Zone;
use lamina_format::{ColumnType, Error, Result, Value};

/// Values of one column for the rows of an append.
pub struct ColumnInput<'a> {
    /// Name.
    pub name: &'a str,
    /// Type.
    pub kind: ColumnType,
    /// The values.
    pub values: Values<'a>,
    /// One byte a row, 0 where there is no value; only beside `Values::Fixed`.
    pub valid: Option<&'a [u8]>,
}

/// The values of a column.
pub enum Values<'a> {
    /// One value for all rows.
    Constant(Value),
    /// i64, f64 or one byte a row, little-endian.
    Fixed(&'a [u8]),
    /// A text or nothing a row.
    Texts(Vec<Option<String>>),
}

const LONGEST_TEXT: usize = 16 << 20;

/// Checks lengths and types.
pub fn check(rows: u64, columns: &[ColumnInput]) -> Result<()> {
    for column in columns {
        let wrong = |what: String| Error::schema(format!("column {:?} {what}", column.name));
        let (given, width) = match &column.values {
            Values::Constant(value) if value.fits(column.kind) => continue,
            Values::Constant(value) => return Err(wrong(format!("cannot hold {value:?}"))),
            Values::Fixed(bytes) => (bytes.len() as u64, width(column.kind)),
            Values::Texts(texts) => {
                if texts.iter().flatten().any(|text| text.len() > LONGEST_TEXT) {
                    return Err(wrong("holds a text of more than 16 MiB".to_owned()));
                }
                (texts.len() as u64, 1)
            }
        };
        if given != rows * width || column.valid.is_some_and(|valid| valid.len() as u64 != rows) {
            return Err(wrong(format!("has {} values for {rows} rows", given / width)));
        }
    }
    Ok(())
}

fn width(kind: ColumnType) -> u64 {
    match kind {
        ColumnType::Int | ColumnType::Float | ColumnType::Time => 8,
        ColumnType::Bool => 1,
        ColumnType::Str => 0,
    }
}

/// A column of an open group.
pub struct ColumnStage {
    pub id: u32,
    pub kind: ColumnType,
    constant: Option<(Value, u64)>,
    pub values: Vec<u8>,
    pub offsets: Vec<u32>,
    /// Bytes of 0 and 1, only if there are nulls.
    pub valid: Option<Vec<u8>>,
    rows: u64,
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        // bits, not values: NaN payloads and -0.0 come back as they were
        (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
        _ => a == b,
    }
}

impl ColumnStage {
    pub fn new(id: u32, kind: ColumnType) -> Self {
        Self { id, kind, constant: None, values: Vec::new(), offsets: vec![0], valid: None, rows: 0 }
    }

    /// The one value of all rows, if there is just one.
    pub fn constant(&self) -> Option<&Value> {
        self.constant.as_ref().map(|(value, _)| value)
    }

    /// Adds the rows `from..to` of an input.
    pub fn push(&mut self, input: &ColumnInput, from: usize, to: usize) {
        if let Values::Constant(value) = &input.values {
            let rows = (to - from) as u64;
            match &mut self.constant {
                None if self.rows == 0 => self.constant = Some((value.clone(), rows)),
                Some((present, count)) if same(present, value) => *count += rows,
                _ => {
                    self.spread();
                    (0..rows).for_each(|_| self.push_value(value));
                }
            }
            self.rows += rows;
            return;
        }
        self.spread();
        match &input.values {
            Values::Constant(_) => {}
            Values::Fixed(bytes) => {
                let width = width(self.kind) as usize;
                self.values.extend_from_slice(&bytes[from * width..to * width]);
                if let Some(valid) = input.valid {
                    self.mark(self.rows, &valid[from..to]);
                } else if let Some(valid) = &mut self.valid {
                    valid.resize(valid.len() + to - from, 1);
                }
            }
            Values::Texts(texts) => {
                for text in &texts[from..to] {
                    self.push_value(&text.as_ref().map_or(Value::Null, |text| Value::Str(text.clone())));
                }
            }
        }
        self.rows += (to - from) as u64;
    }

    fn mark(&mut self, before: u64, valid: &[u8]) {
        if self.valid.is_none() && valid.contains(&0) {
            self.valid = Some(vec![1; before as usize]);
        }
        if let Some(present) = &mut self.valid {
            present.extend(valid.iter().map(|&byte| u8::from(byte != 0)));
        }
    }

    /// Writes out the repetitions of the constant.
    fn spread(&mut self) {
        if let Some((value, rows)) = self.constant.take() {
            self.rows = 0;
            for _ in 0..rows {
                self.push_value(&value);
                self.rows += 1;
            }
        }
    }

    fn push_value(&mut self, value: &Value) {
        let null = *value == Value::Null;
        let before = match self.kind {
            ColumnType::Str => self.offsets.len() as u64 - 1,
            kind => self.values.len() as u64 / width(kind),
        };
        match value {
            Value::Int(x) => self.values.extend_from_slice(&x.to_le_bytes()),
            Value::Float(x) => self.values.extend_from_slice(&x.to_le_bytes()),
            Value::Bool(x) => self.values.push(u8::from(*x)),
            Value::Str(x) => self.values.extend_from_slice(x.as_bytes()),
            Value::Null => self.values.resize(self.values.len() + width(self.kind) as usize, 0),
        }
        if self.kind == ColumnType::Str {
            self.offsets.push(self.values.len() as u32);
        }
        self.mark(before, &[u8::from(!null)]);
    }

    /// What lies in it.
    pub fn zone(&self) -> Zone {
        let present = |row: usize| self.valid.as_ref().is_none_or(|valid| valid[row] != 0);
        let nulls = self.valid.as_ref().map_or(0, |valid| valid.iter().filter(|&&byte| byte == 0).count() as u64);
        let mut zone = Zone { id: self.id, min: Value::Null, max: Value::Null, nulls, nans: 0 };
        match self.kind {
            ColumnType::Int | ColumnType::Time => {
                let all = self.values.as_chunks().0.iter().enumerate();
                let all = all.filter(|(row, _)| present(*row)).map(|(_, &bytes)| i64::from_le_bytes(bytes));
                if let Some((min, max)) = all.fold(None, |span, x| Some(widen(span, x, i64::min, i64::max))) {
                    (zone.min, zone.max) = (Value::Int(min), Value::Int(max));
                }
            }
            ColumnType::Float => {
                let mut span = None;
                for (row, &bytes) in self.values.as_chunks().0.iter().enumerate().filter(|(row, _)| present(*row)) {
                    let x = f64::from_le_bytes(bytes);
                    debug_assert!(present(row));
                    if x.is_nan() {
                        zone.nans += 1;
                    } else {
                        span = Some(widen(span, x, f64::min, f64::max));
                    }
                }
                if let Some((min, max)) = span {
                    (zone.min, zone.max) = (Value::Float(min), Value::Float(max));
                }
            }
            ColumnType::Bool => {
                let all = self.values.iter().enumerate().filter(|(row, _)| present(*row)).map(|(_, &byte)| byte != 0);
                if let Some((min, max)) = all.fold(None, |span, x| Some(widen(span, x, bool::min, bool::max))) {
                    (zone.min, zone.max) = (Value::Bool(min), Value::Bool(max));
                }
            }
            ColumnType::Str => {
                let text = |row: usize| &self.values[self.offsets[row] as usize..self.offsets[row + 1] as usize];
                let all = (0..self.offsets.len() - 1).filter(|&row| present(row)).map(text);
                if let Some((min, max)) = all.fold(None, |span, x| Some(widen(span, x, Ord::min, Ord::max))) {
                    zone.min = Value::Str(cut(min).to_owned());
                    zone.max = round_up(max).map_or(Value::Null, Value::Str);
                }
            }
        }
        zone
    }
}

fn widen<T: Copy>(span: Option<(T, T)>, x: T, min: fn(T, T) -> T, max: fn(T, T) -> T) -> (T, T) {
    span.map_or((x, x), |(low, high)| (min(low, x), max(high, x)))
}

/// The longest prefix of at most 32 bytes that is text.
fn cut(text: &[u8]) -> &str {
    let head = &text[..text.len().min(32)];
    match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default(),
    }
}

/// A text of about 32 bytes that is no less than `text`; None if there is none.
fn round_up(text: &[u8]) -> Option<String> {
    let head = cut(text);
    if head.len() == text.len() {
        return Some(head.to_owned());
    }
    let mut letters: Vec<char> = head.chars().collect();
    while let Some(last) = letters.pop() {
        if let Some(next) = (last as u32 + 1..=last as u32 + 0x801).find_map(char::from_u32) {
            letters.push(next);
            return Some(letters.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ints(values: &[i64]) -> Vec<u8> {
        values.iter().flat_map(|x| x.to_le_bytes()).collect()
    }

    fn input<'a>(kind: ColumnType, values: Values<'a>, valid: Option<&'a [u8]>) -> ColumnInput<'a> {
        ColumnInput { name: "c", kind, values, valid }
    }

    #[test]
    fn equal_constants_take_no_space_and_another_value_spreads_them() {
        let mut column = ColumnStage::new(0, ColumnType::Int);
        let constant = |x| input(ColumnType::Int, Values::Constant(x), None);
        column.push(&constant(Value::Int(5)), 0, 3);
        column.push(&constant(Value::Int(5)), 0, 2);
        assert_eq!(column.constant(), Some(&Value::Int(5)));
        assert!(column.values.is_empty());
        column.push(&constant(Value::Null), 0, 1);
        assert_eq!(column.constant(), None);
        assert_eq!(column.values, ints(&[5, 5, 5, 5, 5, 0]));
        assert_eq!(column.valid, Some(vec![1, 1, 1, 1, 1, 0]));
        column.push(&input(ColumnType::Int, Values::Fixed(&ints(&[9, 7])), None), 0, 2);
        assert_eq!(column.valid, Some(vec![1, 1, 1, 1, 1, 0, 1, 1]));
        assert_eq!(column.zone(), Zone { id: 0, min: Value::Int(5), max: Value::Int(9), nulls: 1, nans: 0 });
    }

    #[test]
    fn minus_zero_is_not_zero_and_nan_is_itself() {
        let mut column = ColumnStage::new(0, ColumnType::Float);
        let constant = |x| input(ColumnType::Float, Values::Constant(Value::Float(x)), None);
        column.push(&constant(f64::NAN), 0, 1);
        column.push(&constant(f64::NAN), 0, 1);
        assert!(column.constant().is_some());
        column.push(&constant(0.0), 0, 1);
        column.push(&constant(-0.0), 0, 1);
        let zone = column.zone();
        assert_eq!((zone.nans, column.values.len()), (2, 32));
        assert_eq!(column.values[24..], (-0.0f64).to_le_bytes());
    }

    #[test]
    fn long_texts_are_cut_below_and_rounded_up_above() {
        let long = "é".repeat(40);
        let mut column = ColumnStage::new(0, ColumnType::Str);
        column.push(&input(ColumnType::Str, Values::Texts(vec![Some(long.clone()), None]), None), 0, 2);
        let zone = column.zone();
        let (Value::Str(min), Value::Str(max)) = (&zone.min, &zone.max) else { panic!("texts") };
        assert!(min.len() <= 32 && max.len() <= 33 && *min <= long && *max >= long);
        assert_eq!(zone.nulls, 1);
        assert_eq!(round_up("\u{10ffff}".repeat(9).as_bytes()), None);
        // the letter before the surrogates has its successor behind them
        assert_eq!(round_up(("a".repeat(29) + "\u{d7ff}x").as_bytes()), Some("a".repeat(29) + "\u{e000}"));
    }

    #[test]
    fn a_wrong_length_names_the_column() {
        let bytes = ints(&[1, 2]);
        let error = check(3, &[input(ColumnType::Int, Values::Fixed(&bytes), None)]).expect_err("ragged");
        assert!(error.message.contains("\"c\" has 2 values for 3 rows"));
    }
}
