//! Errors of the data layer as the exceptions of `lamina.errors`.

use lamina_format::{Error, ErrorKind};
use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;

fn class(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotARun => "NotARunError",
        ErrorKind::Format => "FormatError",
        ErrorKind::Damaged => "DamagedError",
        ErrorKind::Schema => "SchemaError",
        ErrorKind::NotFound => "NotFoundError",
        ErrorKind::Storage => "StorageError",
        ErrorKind::Writer => "WriterError",
        ErrorKind::QueueFull => "QueueFullError",
        ErrorKind::Expired => "ExpiredError",
        ErrorKind::Outside => "IndexError",
    }
}

/// The exception that says what the error says.
pub fn raise(error: Error) -> PyErr {
    Python::attach(|py| {
        let build = || -> PyResult<PyErr> {
            if error.kind == ErrorKind::Outside {
                return Ok(PyIndexError::new_err(error.message.clone()));
            }
            let class = py.import("lamina.errors")?.getattr(class(error.kind))?;
            let exception = class.call1((&error.message, &error.file, error.offset, &error.hint))?;
            Ok(PyErr::from_value(exception))
        };
        build().unwrap_or_else(|failure| failure)
    })
}
