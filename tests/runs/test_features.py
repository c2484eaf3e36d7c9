"""Sparse codes: of whatever form, they are stored as they are, and every question has a dense matrix's answer."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import polars as pl
import pytest
import scipy.sparse
import torch

import lamina
from lamina.errors import NotFoundError, SchemaError
from lamina.interchange.leaving import leaving
from lamina.report.choice import vector_sites
from lamina.sweeps.subjects import subjects
from lamina_kernels.sparse import Codes
from tests.faults import broken
from tests.store import reader

SITE = "mlp.output/sae"


def planted(rows: int, width: int, seed: int = 0) -> np.ndarray:
    """Rows of which one in five units is active; the first row has none, the second all."""
    draw = np.random.default_rng(seed)
    dense = np.where(draw.random((rows, width)) < 0.2, draw.normal(size=(rows, width)), 0).astype(np.float32)
    dense[:1], dense[1:2] = 0, draw.normal(size=(1, width))
    return dense


def write(run: lamina.Run, codes: Any, *, name: str = SITE, **given: Any) -> lamina.Run:
    with run.writer() as writer:
        options: Any = ({} if "row" in given else {"step": 0}) | given
        writer.features(name, codes, **options)
    return run.refresh()


def densified(run: lamina.Run, width: int) -> np.ndarray:
    rows = run.rows(SITE)
    assert rows.shape[1] == width
    return rows.gather(range(len(rows))).numpy()


def padded(dense: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Values and indices, the same number in each row, strongest first, padded."""
    order = np.argsort(-abs(dense), kind="stable")
    values = np.take_along_axis(dense, order, 1)
    return torch.from_numpy(values), torch.from_numpy(np.where(values == 0, -1, order))


def fixed(dense: np.ndarray) -> SimpleNamespace:
    values, ids = padded(np.where(dense == 0, 1e-30, dense))
    return SimpleNamespace(values=values * (abs(values) > 1e-20), ids=ids.int(), width=dense.shape[1], indptr=None)


def kernels(dense: np.ndarray) -> Codes:
    matrix = fixed(dense)
    return Codes(matrix.values.requires_grad_(), matrix.ids, matrix.width)


def ragged(dense: np.ndarray) -> SimpleNamespace:
    matrix = scipy.sparse.csr_array(dense)
    ids, values = (torch.from_numpy(part) for part in (matrix.indices, matrix.data))
    return SimpleNamespace(values=values, ids=ids, width=dense.shape[1], indptr=torch.from_numpy(matrix.indptr).long())


FORMS = {
    "csr": lambda dense: (scipy.sparse.csr_array(dense), {}),
    "coo_matrix": lambda dense: (scipy.sparse.coo_array(dense), {}),
    "torch_csr": lambda dense: (torch.from_numpy(dense).to_sparse_csr(), {}),
    "torch_coo": lambda dense: (torch.from_numpy(dense.T.copy()).to_sparse().t(), {}),
    "pair": lambda dense: (padded(dense), {"width": dense.shape[1]}),
    "fixed": lambda dense: (fixed(dense), {}),
    "kernels": lambda dense: (kernels(dense), {}),
    "kernels_ragged": lambda dense: (kernels(dense).csr(), {}),
    "ragged": lambda dense: (ragged(dense), {}),
    "dense": lambda dense: (torch.from_numpy(dense).requires_grad_(), {"threshold": 0}),
    "array": lambda dense: (dense, {"threshold": 0.0}),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_codes_of_any_form_are_the_same_matrix(run: lamina.Run, form: str) -> None:
    dense = planted(9, 12)
    codes, given = FORMS[form](dense)
    write(run, codes, example=np.arange(9), **given)
    assert (densified(run, 12) == dense).all()
    found = run.features(SITE).select("example", "feature", "value").collect()
    rows, ids = dense.nonzero()
    assert found.rows() == list(zip(rows.tolist(), ids.tolist(), dense[rows, ids].tolist(), strict=True))


def test_top_k_of_positions_and_half_precision(run: lamina.Run) -> None:
    dense = torch.from_numpy(planted(12, 10)).abs().bfloat16().reshape(4, 3, 10)
    top = dense.topk(4)
    write(run, top, width=10, example=np.arange(4), source="train")
    kept = torch.zeros_like(dense).scatter(2, top.indices, top.values).reshape(12, 10)
    assert torch.equal(run.rows(SITE).gather(range(12)), kept)
    shown = run.features(SITE).collect()
    assert shown.schema["value"] == pl.Float32
    assert shown.filter(pl.col("example") == 3)["position"].unique().sort().to_list() == [0, 1, 2]


def test_a_threshold_leaves_out_what_is_small_and_keeps_what_is_no_number(run: lamina.Run) -> None:
    write(run, np.array([[0.4, -0.6, 0.5, np.nan]], np.float32), threshold=0.5)
    assert run.features(SITE).collect()["feature"].to_list() == [1, 3]
    assert run.sites()["non_finite"].item() == 1


@pytest.mark.parametrize("width", [2**16, 2**16 + 1, 2**31 - 1])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_greatest_feature_of_any_width(run: lamina.Run, width: int, dtype: torch.dtype) -> None:
    write(run, (torch.tensor([[2.0, 1.5]], dtype=dtype), torch.tensor([[width - 1, 0]])), width=width)
    found = run.features(SITE).filter(pl.col("feature") > 0).collect()
    assert found.select("feature", "value").rows() == [(width - 1, 2.0)]
    chosen = run.rows(SITE, features=[0]).gather([0])
    assert chosen.tolist() == [[1.5]]
    assert chosen.dtype == dtype


def twice() -> scipy.sparse.coo_array:
    """Feature 1 of the first row, once as 1 and once as 2."""
    return scipy.sparse.coo_array((np.array([1, 2], np.float32), ([0, 0], [1, 1])), shape=(1, 2))


WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "beyond": ((torch.ones(1, 1), torch.tensor([[5]])), {"width": 5}, "feature 5"),
    "twice": ((torch.ones(1, 2), torch.tensor([[3, 3]])), {"width": 5}, "feature 3 twice"),
    "k_above_width": ((torch.ones(1, 3), torch.tensor([[0, 1, 0]])), {"width": 2}, "feature 0 twice"),
    "below": (SimpleNamespace(tocsr=lambda: SimpleNamespace(shape=(1, 3), indptr=[0, 1], indices=np.array([-1]),
                                                            data=np.ones(1, np.float32))), {}, "feature -1"),
    "no_width": ((torch.ones(1, 1), torch.tensor([[0]])), {}, "how many features"),
    "swapped": ((torch.tensor([[0]]), torch.ones(1, 1)), {"width": 3}, "are f32"),
    "shapes": ((torch.ones(2, 1), torch.zeros(1, 1).long()), {"width": 3}, "shapes"),
    "three": ((torch.ones(1, 1),) * 3, {"width": 3}, "3 things"),
    "dense": (torch.ones(1, 1), {}, "Tensor"),
    "doubles": (scipy.sparse.csr_array(np.ones((1, 2))), {}, "f64"),
    "integers": ((torch.ones(1, 1).int(), torch.zeros(1, 1).long()), {"width": 3}, "values .* are i32"),
    "width_is_text": ((torch.ones(1, 1), torch.zeros(1, 1).long()), {"width": "3"}, "width='3'"),
    "no_features": ((torch.ones(1, 1), torch.zeros(1, 1).long()), {"width": 0}, "width=0"),
    "too_wide": ((torch.ones(1, 1), torch.zeros(1, 1).long()), {"width": 2**31}, "features"),
    "another_width": (scipy.sparse.csr_array(np.ones((1, 2), np.float32)), {"width": 3}, "have 2 features"),
    "less_than_none": ((torch.ones(1, 1), torch.zeros(1, 1).long()), {"width": -1}, "width=-1"),
    "dense_of_none": (np.ones((1, 0), np.float32), {"threshold": 0}, "0 features"),
    "below_zero": (np.ones((1, 2), np.float32), {"threshold": -1}, "threshold"),
    "threshold_is_text": (np.ones((1, 2), np.float32), {"threshold": "0"}, "threshold='0'"),
    "threshold_of_each": (torch.ones(1, 2), {"threshold": torch.zeros(2)}, "threshold=tensor.* one number"),
    "unsigned": ((torch.ones(1, 1), np.zeros((1, 1), np.uint64)), {"width": 3}, "are u64 .* as int64"),
    "twice_in_scipy": (twice(), {}, "feature 1 twice"),
    "twice_in_torch": (torch.sparse_coo_tensor(torch.tensor([[0, 0], [1, 1]]), torch.ones(2), (1, 2),
                                               check_invariants=True), {}, "feature 1 twice"),
    "vectors_in_coo": (torch.ones(2, 3).to_sparse(1), {}, "1 sparse and 1 dense"),
    "pointers": (SimpleNamespace(values=torch.ones(2), ids=torch.tensor([0, 1]), width=2,
                                 indptr=torch.tensor([0, 3])), {}, "row pointers"),
    "ragged_column": ((torch.ones(2, 1), torch.zeros(2, 1).long()), {"width": 1, "example": np.arange(3)}, "example"),
    "beside_row": ((torch.ones(1, 1), torch.zeros(1, 1).long()), {"width": 1, "row": [0], "example": 3}, "beside row"),
    "other_rows": ((torch.ones(2, 1), torch.zeros(2, 1).long()), {"width": 1, "row": [0]}, "names 1"),
    "unknown_row": ((torch.ones(1, 1), torch.zeros(1, 1).long()), {"width": 1, "row": [7]}, "no row 7"),
    "option": ((torch.ones(1, 1), torch.zeros(1, 1).long()), {"width": 1, "duplicates": "max"}, "duplicates"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_refused_by_name_and_nothing_is_stored(run: lamina.Run, case: str) -> None:
    codes, given, message = WRONG[case]
    with pytest.raises(SchemaError, match=message):
        write(run, codes, **given)
    assert run.refresh().sites().is_empty() or run.sites()["rows"].sum() == 0


@pytest.mark.filterwarnings("ignore:Sparse CSC tensor support")
def test_a_layout_by_columns_is_refused_by_name(run: lamina.Run) -> None:
    with pytest.raises(SchemaError, match=r"layout torch.sparse_csc .*to_sparse_csr"):
        write(run, torch.eye(3).to_sparse_csc())


def test_a_site_keeps_its_width_its_dtype_and_that_it_is_sparse(run: lamina.Run) -> None:
    write(run, planted(2, 4), threshold=0)
    for wrong in (planted(2, 5), planted(2, 4).astype(np.float16)):
        with pytest.raises(SchemaError, match="holds sparse f32 codes of 4 features"):
            write(run, wrong, threshold=0)
    with run.writer() as writer, pytest.raises(SchemaError, match="now given f32"):
        writer.append({SITE: planted(2, 4)}, step=0)
    with pytest.raises(SchemaError, match="sparse codes are no column"):
        run.activations(SITE)
    with run.writer() as writer:
        writer.append({"loss": np.ones(2)}, step=0)
    with pytest.raises(SchemaError, match="no sparse codes"):
        run.refresh().features("loss")
    with pytest.raises(SchemaError, match="no sparse codes"):
        run.rows("loss", features=[0])
    with pytest.raises(NotFoundError, match="no site"):
        run.features("mlp")
    assert run.activations().collect_schema().names()[-1] == "loss"


def test_duplicates_are_added_and_zeros_of_either_sign_left_out(run: lamina.Run) -> None:
    values, ids = torch.tensor([[1.0, -0.0, 2.0, 0.5, -0.5]]), torch.tensor([[3, 1, 3, 0, 0]])
    write(run, (values, ids), width=4, duplicates="sum")
    write(run, twice(), width=2, duplicates="sum", name="other")
    assert run.features(SITE).select("feature", "value").collect().rows() == [(3, 3.0)]
    assert run.features("other").select("feature", "value").collect().rows() == [(1, 3.0)]


def several(path: Path) -> tuple[lamina.Run, np.ndarray, pl.DataFrame]:
    """A run with codes of its own rows, of two writers, and attached ones, some of them hidden; and what it shows."""
    run, width = lamina.Run.create(path), 9
    dense = planted(40, width, seed=3)
    frames = []
    for part, source in enumerate(["train", "validation"]):
        with run.writer() as writer:
            for step in range(2):
                some = dense[10 * (2 * part + step) :][:10]
                given = {"step": step, "example": np.arange(10) + part, "source": source}
                writer.features(SITE, scipy.sparse.csr_array(some), **given).wait()
                frames.append(pl.DataFrame(given))
    with run.writer() as writer:
        writer.append({"x": np.ones((6, 1))}, step=5, example=np.arange(6), source="train").wait()
        late = planted(6, width, seed=4)
        names = run.refresh().rows("x").ids
        writer.features(SITE, scipy.sparse.csr_array(late[::-1]), row=names[::-1].copy())
    frames.append(pl.DataFrame({"step": 5, "example": np.arange(6), "source": "train"}))
    run.delete(SITE, steps=1, rows=[range((1 << 40) + 12, (1 << 40) + 15)])
    shown = pl.concat([frame.with_columns(pl.col("step").cast(pl.Int64)) for frame in frames])
    kept = np.r_[:32, 35:46]
    return run.refresh(), np.concatenate([dense, late])[kept], shown[kept]


PREDICATES = [
    None,
    pl.col("feature") == 4,
    pl.col("feature").is_in([1, 7, 8]) & (pl.col("step") == 1),
    (pl.col("source") == "validation") & (pl.col("value") > 0.3),
    (pl.col("feature") % 3 == 1) & (pl.col("value").abs() < 1) & pl.col("example").is_between(2, 7),
    (pl.col("feature") < 3) | (pl.col("step") == 5),
    (pl.col("feature") > pl.col("example")) & (pl.col("value") < 0),
    pl.col("feature") > 100,
    pl.col("step") == 77,
    pl.col("value").is_nan(),
    pl.lit(True),
]


@pytest.fixture(scope="module", params=["as written", "compacted", "cold", "copied"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("features")
    run, dense, shown = several(folder / "run")
    if request.param != "as written":
        run.compact(cold=[SITE] if request.param == "cold" else ())
    if request.param == "copied":
        run = run.copy(folder / "copy")
    return run, dense, shown


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
@pytest.mark.parametrize("number", range(len(PREDICATES)))
def test_every_question_has_the_dense_answer(
    case: tuple[lamina.Run, np.ndarray, pl.DataFrame], number: int, engine: Literal["in-memory", "streaming"]
) -> None:
    run, dense, shown = case
    rows, ids = dense.nonzero()
    long = shown[rows].with_columns(feature=pl.Series(ids, dtype=pl.Int64), value=pl.Series(dense[rows, ids]))
    wanted, frame = long, run.features(SITE)
    predicate = PREDICATES[number]
    if predicate is not None:
        wanted, frame = long.filter(predicate), frame.filter(predicate)
    columns = ["step", "example", "source", "feature", "value"]
    found = frame.select(columns).collect(engine=engine)
    assert found.rows() == wanted.select(columns).rows()
    assert frame.select(pl.len()).collect(engine=engine).item() == wanted.height
    assert frame.select("value").head(3).collect(engine=engine)["value"].to_list() == wanted["value"][:3].to_list()
    counts = frame.group_by("feature").len().sort("feature").collect(engine=engine)
    assert counts.rows() == wanted.group_by("feature").len().sort("feature").rows()


@pytest.mark.parametrize("fault", ["features_are_counted_from_one", "features_forget_their_rows"])
def test_wrong_answers_would_be_noticed(case: tuple[lamina.Run, np.ndarray, pl.DataFrame], fault: str) -> None:
    with broken(fault), pytest.raises(AssertionError):
        test_every_question_has_the_dense_answer(case, 2, "in-memory")


def test_chosen_features_come_out_as_dense_blocks(case: tuple[lamina.Run, np.ndarray, pl.DataFrame]) -> None:
    run, dense, shown = case
    features = [7, 0, 3]
    # the attached rows are of another source
    rows = run.rows(SITE, features=features, source="train")
    of_source = (shown["source"] == "train").to_numpy()
    wanted = dense[of_source][:, features]
    assert rows.shape == wanted.shape
    assert rows.metadata(["example"]).equals(shown.filter(of_source).select("example"))
    assert (rows.gather(range(len(rows))).numpy() == wanted).all()
    order = np.random.default_rng(0).integers(0, len(rows), 50)
    assert (rows.gather(order).numpy() == wanted[order]).all()
    blocks = list(rows.codes(7))
    assert [len(block) for block in blocks] == [7] * (len(rows) // 7) + [len(rows) % 7]
    assert (torch.cat([block.dense() for block in blocks]).numpy() == wanted).all()
    (scattered,) = rows[order].to(dtype=torch.float64).codes(50)
    assert scattered.values.dtype == torch.float64
    assert (scattered.dense().numpy() == wanted[order]).all()
    again = pickle.loads(pickle.dumps(rows[3:9]))
    assert (torch.cat(list(again.blocks(4))).numpy() == wanted[3:9]).all()
    some = run.rows(SITE, where=pl.col("step") == 0, source="validation")
    assert (some.gather(range(len(some))).numpy() == dense[20:30]).all()
    with pytest.raises(SchemaError, match="feature 9 of codes 9 wide"):
        run.rows(SITE, features=[9], source="train")
    with pytest.raises(SchemaError, match="names 1 twice"):
        run.rows(SITE, features=[1, 1], source="train")
    wrong: list[Any] = [3, {1, 2}, [1.0], [[1], [2, 3]], pl.Series(["a"])]
    for none in wrong:
        with pytest.raises(SchemaError, match=r"features= is .*give the numbers"):
            run.rows(SITE, features=none, source="train")
    some: Any = pl.Series([7, 0, 3])
    assert (run.rows(SITE, features=some, source="train").gather([0]).numpy() == wanted[:1]).all()
    assert run.rows(SITE, features=[], source="train").shape == (len(wanted), 0)


def names(run: lamina.Run) -> list[int]:
    return sorted(int(name) for source in ("train", "validation") for name in run.rows(SITE, source=source).ids)


def test_the_documents_reader_finds_the_codes(case: tuple[lamina.Run, np.ndarray, pl.DataFrame]) -> None:
    run, dense, _ = case
    found = {}
    for group in reader.read(run.path).groups:
        if SITE in group.sites:
            shown = ~group.hidden[SITE]
            found |= dict(zip(group.names[shown].tolist(), group.sites[SITE][shown], strict=True))
    wanted = dict(zip(names(run), dense, strict=True))
    assert found.keys() == wanted.keys()
    assert all((found[name] == wanted[name]).all() for name in wanted)
    assert run.verify(progress=False).ok


def test_codes_are_durable_and_seen_by_a_run_that_was_opened_before(run: lamina.Run) -> None:
    dense = planted(5, 4)
    with run.writer() as writer:
        for step in range(3):
            writer.features(SITE, scipy.sparse.csr_array(dense), step=step).wait()
            seen = lamina.open(run.path).features(SITE)
            assert seen.collect().height == (step + 1) * np.count_nonzero(dense)
    run.refresh().rewind(2)
    assert run.features(SITE).collect()["step"].unique().sort().to_list() == [0, 1]
    assert run.sites().select("kind", "dtype", "shape", "rows").row(0) == ("sparse", "f32", [4], 10)


def test_a_second_value_of_a_row_is_refused(run: lamina.Run) -> None:
    with run.writer() as writer:
        writer.append({"x": np.ones((2, 1))}, step=0).wait()
        writer.features(SITE, planted(2, 3), threshold=0, row=[0, 1])
        with pytest.raises(SchemaError, match="already"):
            writer.features(SITE, planted(1, 3), threshold=0, row=[1])


def test_what_takes_vectors_leaves_codes_out(run: lamina.Run, tmp_path: Path) -> None:
    with run.writer() as writer:
        writer.append({"x": np.ones((3, 2), np.float32)}, step=0, example=np.arange(3)).wait()
        writer.features(SITE, planted(3, 4), threshold=0, row=[0, 1, 2])
    run.refresh()
    assert vector_sites(run)["site"].to_list() == ["x"]
    assert [member.site for member in leaving(run, None, None, None, None)] == ["x"]
    assert [member.site for member in leaving(run, "**", None, None, None)] == ["x"]
    assert [subject.site for subject in subjects({"run": run}, None, None)] == ["x"]
    with pytest.raises(NotFoundError):
        subjects({"run": run}, SITE, None)
    with pytest.raises(SchemaError, match="sparse codes"):
        leaving(run, SITE, None, None, None)
    with pytest.raises(SchemaError, match="cannot be preshuffled"):
        run.preshuffle(tmp_path / "shuffled", SITE, seed=0)
