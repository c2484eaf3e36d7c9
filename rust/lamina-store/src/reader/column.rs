//! A metadata column of a group, read back.

use lamina_format::{ColumnType, Error, Result, Value};

/// Values of a column, as they lie in the file.
#[derive(Clone, Debug, PartialEq)]
pub enum ColumnData {
    /// One value for all rows; null also where the group does not have the column.
    Constant(Value),
    /// i64, f64 or one byte a row, and one byte a row that is 0 where there is no value.
    Fixed(Vec<u8>, Option<Vec<u8>>),
    /// Offsets (rows + 1), UTF-8, and validity likewise.
    Texts(Vec<u32>, Vec<u8>, Option<Vec<u8>>),
}

/// Checks that what was read fits the rows: a damaged or hostile record never leads out of bounds.
pub fn checked(kind: ColumnType, rows: u64, data: ColumnData) -> Result<ColumnData> {
    let rows = rows as usize;
    let wrong = || Error::damaged("a column's blocks do not fit its rows");
    let valid = match &data {
        ColumnData::Constant(_) => return Ok(data),
        ColumnData::Fixed(values, valid) => {
            let width = if kind == ColumnType::Bool { 1 } else { 8 };
            if values.len() != rows * width {
                return Err(wrong());
            }
            valid
        }
        ColumnData::Texts(offsets, bytes, valid) => {
            let ascending = offsets.windows(2).all(|pair| pair[0] <= pair[1]);
            let ends = offsets.first() == Some(&0) && offsets.last().map(|&end| end as usize) == Some(bytes.len());
            if offsets.len() != rows + 1 || !ascending || !ends {
                return Err(wrong());
            }
            let text = std::str::from_utf8(bytes).map_err(|_| wrong())?;
            if !offsets.iter().all(|&offset| text.is_char_boundary(offset as usize)) {
                return Err(wrong());
            }
            valid
        }
    };
    if valid.as_ref().is_some_and(|valid| valid.len() != rows) {
        return Err(wrong());
    }
    Ok(data)
}
