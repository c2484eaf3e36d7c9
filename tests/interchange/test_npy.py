from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lamina
from lamina import interchange
from lamina.errors import DamagedError, LaminaError, NotFoundError, SchemaError, StorageError
from lamina.interchange.npy import npy_tensor
from tests.faults import broken
from tests.interchange.planted import PLAIN, bits, held, same_bits


@pytest.mark.parametrize("dtype", PLAIN)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("endian", ["<", ">"])
def test_every_array_is_read_bit_for_bit(tmp_path: Path, dtype: str, order: str, endian: str) -> None:
    for shape in [(7,), (7, 5), (3, 4, 5), (2, 3, 4, 5), (1, 1)]:
        values = bits(dtype, shape)
        swapped = values if endian == "<" else values.byteswap().view(values.dtype.newbyteorder(">"))
        np.save(tmp_path / "x.npy", np.asfortranarray(swapped) if order == "F" else swapped)
        tensor = npy_tensor(tmp_path / "x.npy")
        assert tensor.shape == shape
        pieces = [tensor.read(start, min(start + 2, shape[0])) for start in range(0, shape[0], 2)]
        assert same_bits(np.concatenate(pieces), values)


@pytest.mark.parametrize("dtype", PLAIN)
def test_every_array_is_stored_bit_for_bit(tmp_path: Path, dtype: str) -> None:
    values = bits(dtype, (7, 2, 3, 2))
    np.save(tmp_path / "x.npy", values)
    interchange.from_npy(tmp_path / "run", tmp_path / "x.npy", site="s", progress=False)
    run = lamina.open(tmp_path / "run")
    assert same_bits(held(run, "s"), values)
    assert run.sites().select("dtype", "shape").rows() == [(dtype, [2, 3, 2])]


def test_many_blocks_in_fortran_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lamina.interchange.blocks.BLOCK_BYTES", 1000)
    values = bits("f32", (501, 3, 5))
    np.save(tmp_path / "x.npy", np.asfortranarray(values))
    rows = interchange.from_npy(tmp_path / "run", tmp_path / "x.npy", progress=False)
    assert rows == 1503
    run = lamina.open(tmp_path / "run")
    assert same_bits(held(run, "x"), values)
    assert run.rows("x").metadata(["position"])["position"].to_list() == [0, 1, 2] * 501
    assert run.rows("x").metadata(["example"])["example"].to_list() == np.repeat(np.arange(501), 3).tolist()


def test_the_order_of_blocks_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with broken("import_reads_fortran_as_c"), pytest.raises(AssertionError):
        test_many_blocks_in_fortran_order(tmp_path, monkeypatch)


@pytest.mark.parametrize("shape", [(0, 5), (0,), (0, 3, 4)])
def test_an_empty_array_declares_its_site(tmp_path: Path, shape: tuple) -> None:
    np.save(tmp_path / "x.npy", np.empty(shape, np.float16))
    assert interchange.from_npy(tmp_path / "run", tmp_path / "x.npy", progress=False) == 0
    run = lamina.open(tmp_path / "run")
    assert run.sites().select("site", "dtype", "rows").rows() == [("x", "f16", 0)]


def test_columns_step_and_source(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((4, 2)))
    columns = {
        "example": [7, 7, 8, 9],
        "label": ["a", None, "b", "c"],
        "split": "held out",
        "step": np.array([1, 1, 5, 1]),
    }
    interchange.from_npy(tmp_path / "run", tmp_path / "x.npy", columns=columns, source=None, progress=False)
    frame = lamina.open(tmp_path / "run").activations().sort("row").collect()
    assert frame["step"].to_list() == [1, 1, 5, 1]
    assert frame["example"].to_list() == [7, 7, 8, 9]
    assert frame["label"].to_list() == ["a", None, "b", "c"]
    assert frame["split"].to_list() == ["held out"] * 4
    assert "source" not in frame.columns


def test_a_second_import_goes_on_behind_the_first(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((4, 2)))
    run = lamina.Run.create(tmp_path / "run")
    for step in (0, 3):
        interchange.from_npy(run, tmp_path / "x.npy", step=step, source="probe", progress=False)
    frame = run.activations().sort("row").collect()
    assert frame["example"].to_list() == list(range(8))
    assert frame["step"].to_list() == [0] * 4 + [3] * 4
    assert frame["source"].unique().to_list() == ["probe"]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_comes_member_by_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save) -> None:
    monkeypatch.setattr("lamina.interchange.blocks.BLOCK_BYTES", 777)
    arrays = {dtype: bits(dtype, (100, 3), seed) for seed, dtype in enumerate(PLAIN)}
    arrays["fortran"] = np.asfortranarray(bits("f32", (100, 6)))
    arrays["swapped"] = bits("f32", (100, 6)).astype(">f4")
    arrays["other"] = bits("f64", (17, 2, 3))
    labels = np.arange(100) // 3
    save(
        tmp_path / "a.npz",
        doc=labels,
        text=np.array([f"e{k}" for k in range(100)]),
        weight=np.arange(100) / 7,
        **arrays,
    )
    path, run = tmp_path / "a.npz", lamina.Run.create(tmp_path / "run")
    interchange.from_npz(run, path, sites=[*arrays], columns=["weight", "text"], example="doc", progress=False)
    for name, values in arrays.items():
        assert same_bits(held(run, name), values.astype(values.dtype.newbyteorder("=")))
    metadata = run.rows("f32").metadata(["example", "weight", "text"])
    assert metadata["example"].to_list() == labels.tolist()
    assert metadata["text"].to_list() == [f"e{k}" for k in range(100)]
    assert metadata["weight"].to_list() == (np.arange(100) / 7).tolist()


def test_arrays_of_objects_are_never_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "went-off",))

    np.save(tmp_path / "x.npy", np.array([Bomb(), Bomb()], dtype=object))
    np.savez(tmp_path / "x.npz", inner=np.array([Bomb()], dtype=object))
    with pytest.raises(SchemaError, match=r"x\.npy.*Python objects"):
        interchange.from_npy(tmp_path / "run", tmp_path / "x.npy")
    with pytest.raises(SchemaError, match=r"'inner' holds Python objects"):
        interchange.from_npz(tmp_path / "run", tmp_path / "x.npz")
    assert not (tmp_path / "went-off").exists()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("size", [0, 5, 60, 127, 128, 200, 1127])
def test_a_truncated_array_is_damaged(tmp_path: Path, size: int) -> None:
    np.save(tmp_path / "x.npy", np.zeros((10, 25), np.float32))
    data = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(data[:size])
    with pytest.raises(DamagedError, match=r"x\.npy"):
        interchange.from_npy(tmp_path / "run", tmp_path / "x.npy")
    assert list(tmp_path.iterdir()) == [tmp_path / "x.npy"]


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-4, 2), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387905, 4), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': 'x', }",
        "{'descr': '<f4'}",
        "__import__('os').abort()",
        "(" * 5000,
    ],
)
def test_a_hostile_header_is_an_error(tmp_path: Path, header: str) -> None:
    text = header.encode() + b"\n"
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(64))
    with pytest.raises(DamagedError, match=r"x\.npy"):
        interchange.from_npy(tmp_path / "run", tmp_path / "x.npy")


def test_a_damaged_archive_is_noticed_and_leaves_nothing(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.random.default_rng(0).normal(size=(100, 10)))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[len(data) // 2] ^= 255
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(DamagedError, match=r"a\.npz"):
        interchange.from_npz(tmp_path / "run", tmp_path / "a.npz", progress=False)
    assert list(tmp_path.iterdir()) == [tmp_path / "a.npz"]
    (tmp_path / "b.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(DamagedError, match=r"b\.npz"):
        interchange.from_npz(tmp_path / "run", tmp_path / "b.npz", progress=False)


def test_a_lying_archive_is_damaged(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive, archive.open("x.npy", "w") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 4)}
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(DamagedError, match="'x' of shape"):
        interchange.from_npz(tmp_path / "run", tmp_path / "a.npz")


def test_an_encrypted_archive_is_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones((4, 2)))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[6] |= 1  # the flags of the member, and again in the directory
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(SchemaError, match="'x' is encrypted"):
        interchange.from_npz(tmp_path / "run", tmp_path / "a.npz")
    assert not (tmp_path / "run").exists()


def test_what_does_not_fit_says_so(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((4, 2), np.uint16))
    with pytest.raises(SchemaError, match="dtype u16, which rows cannot have"):
        interchange.from_npy(tmp_path / "run", tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", np.zeros((4, 2)))
    with pytest.raises(SchemaError, match="'label' has 3 entries, there are 4 rows"):
        interchange.from_npy(tmp_path / "run", tmp_path / "x.npy", columns={"label": [1, 2, 3]})
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 2)), number=np.float32(3))
    with pytest.raises(SchemaError, match="'number' is a single number"):
        interchange.from_npz(tmp_path / "run", tmp_path / "a.npz")
    with pytest.raises(NotFoundError, match="'doc'"):
        interchange.from_npz(tmp_path / "run", tmp_path / "a.npz", sites="x", example="doc")
    with pytest.raises(StorageError, match="No such file"):
        interchange.from_npy(tmp_path / "run", tmp_path / "none.npy")
    np.save(tmp_path / "s.npy", np.zeros(3, [("a", "f4")]))
    with pytest.raises(SchemaError, match="has fields"):
        interchange.from_npy(tmp_path / "run", tmp_path / "s.npy")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", [LaminaError, KeyboardInterrupt])
def test_an_import_into_a_run_that_fails_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    monkeypatch.setattr("lamina.interchange.blocks.BLOCK_BYTES", 16)
    np.save(tmp_path / "x.npy", np.ones((4, 2)))
    run = lamina.Run.create(tmp_path / "run")
    interchange.from_npy(run, tmp_path / "x.npy", columns={"label": list("abcd")}, step=1, progress=False)
    if kind is KeyboardInterrupt:
        whole, calls = lamina.Writer.append, []

        def interrupted(self: lamina.Writer, *arguments: Any, **options: Any) -> Any:
            calls.append(None)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return whole(self, *arguments, **options)

        monkeypatch.setattr(lamina.Writer, "append", interrupted)
    with pytest.raises(kind):
        interchange.from_npy(run, tmp_path / "x.npy", columns={"label": ["a", "b", 1, "c"]}, step=1, progress=False)
    monkeypatch.undo()
    assert lamina.open(run.path).rows("x").shape == (4, 2)
    assert run.refresh().status.state == "failed"
    assert lamina.open(run.path, hidden=True).rows("x").shape == (6, 2)
    assert interchange.from_npy(run, tmp_path / "x.npy", step=1, progress=False) == 4
    assert lamina.open(run.path).rows("x").metadata(["example"])["example"].to_list() == list(range(8))


def test_rows_that_stay_behind_a_failure_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with broken("import_leaves_its_rows"), pytest.raises(AssertionError):
        test_an_import_into_a_run_that_fails_is_taken_back(tmp_path, monkeypatch, LaminaError)
