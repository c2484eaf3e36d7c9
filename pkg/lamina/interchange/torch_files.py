"""Files of `torch.save`, from which nothing but tensors and plain values is ever unpickled."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

from lamina.errors import DamagedError, SchemaError, StorageError
from lamina.runs.trusted import load_trusted

ENDINGS = (".pt", ".pth", ".bin", ".ckpt")


def load_torch(path: Path) -> Any:
    """What the file holds, with tensors that torch maps where the file allows it.

    Raises:
        SchemaError: It holds objects other than tensors, arrays and plain values: these would run code.
        DamagedError: It is no such file, or was cut short.
    """
    try:
        mapped = zipfile.is_zipfile(path)  # what torch wrote before 1.6 is no zip file, and cannot be mapped
        return load_trusted(path, mmap=mapped)  # random states of the Trainer are NumPy arrays
    except pickle.UnpicklingError as error:
        refused = str(error).partition("Please file an issue")[0].strip().splitlines()
        why = next((line.strip() for line in refused if "GLOBAL" in line or "global" in line), "")
        raise SchemaError(
            f"it holds more than tensors and plain values, and nothing else is unpickled{f': {why}' if why else ''}",
            str(path),
            hint="unpickling runs whatever the file says; where you trust it, load it with torch yourself and save "
            "its state_dict",
        ) from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}", str(path)) from error
    except (EOFError, RuntimeError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedError(f"no file of torch.save, or it was cut short: {first}", str(path)) from error
