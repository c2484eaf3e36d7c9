"""What a recording would take, before it starts: every site of a model, with shape, rows and bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl
import torch
from rich.filesize import decimal

from lamina.errors import RecordingError
from lamina.modules.wrappers import plain_parameters
from lamina.recording.account import Account
from lamina.recording.elements import tensors
from lamina.recording.kept import row_count
from lamina.recording.layouts import as_items
from lamina.recording.passes import Data, check_data, record_pass
from lamina.recording.resolve import Resolved, places, resolve
from lamina.recording.schedules import Every, schedule_of
from lamina.recording.sites import DEFAULT, ResolvedSite, Sites
from lamina.recording.watching import Taps
from lamina.runs.buffers import Lent

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Survey:
    """What `lamina.sites` returns; printed, it is a table and a line about the whole plan.

    Attributes:
        frame: site, shape (of the tensor; in a plan as its site reads it), dtype, calls (of the module, for this
            batch), rows and bytes (of a step that is due), and with `steps=` due (steps) and total (bytes).
        bytes: Of a step at which all sites are due.
        total: Of the whole run, None without `steps=`.
    """

    frame: pl.DataFrame
    bytes: int
    total: int | None

    def __str__(self) -> str:
        with pl.Config(tbl_rows=-1, tbl_hide_dataframe_shape=True, fmt_str_lengths=80, tbl_hide_column_data_types=True):
            table = str(self.frame)
        whole = "" if self.total is None else f"; the whole run takes {decimal(self.total)}"
        rows = self.frame["rows"].sum()
        return f"{table}\n{self.frame.height} sites, {rows} rows, {decimal(self.bytes)} a step that is due{whole}"

    __repr__ = __str__


def sites(
    model: nn.Module,
    batch: Data,
    *,
    sites: Sites | None = None,
    every: Every = 1,
    steps: int | None = None,
    attention: Iterable[str] = (),
) -> Survey:
    """Tell what can be recorded of a model, or what a plan would record, from one batch.

    The model runs once over the batch, in evaluation mode and without gradients, and is left as it came. Nothing is
    written.

    Args:
        model: Any `torch.nn.Module`.
        batch: A batch, as for the `probes` of `lamina.record`.
        sites: What is to be recorded, as for `lamina.record`. None lists the input and the output of every module, each
            tensor of a tuple or mapping as a site of its own, and then every parameter. Gradients of activations
            count like the activations.
        every: The recorder's schedule, with `steps`.
        steps: How many steps the training will take; the frame then tells what each site will take on disk.
        attention: Statistics of attention, as for `lamina.record`.

    Returns:
        A frame and its sums. Bytes are those of the values: no metadata, no masks, before `compact`.

    Raises:
        RecordingError: If a pattern matches nothing, or a site of the plan captures nothing.

    Example:
        >>> import lamina, torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU())
        >>> survey = lamina.sites(model, torch.ones(16, 4), sites="*.output", every=10, steps=100)
        >>> survey.frame.select("site", "rows", "bytes", "due", "total").rows()
        [('0.output', 16, 512, 10, 5120), ('1.output', 16, 512, 10, 5120)]
        >>> survey.total
        10240
    """
    check_data("sites", batch)
    if sites is None:
        if attention:
            raise RecordingError("attention= belongs to a plan", hint="give sites=, may be sites=[]")
        found = _everything(model, batch)
        options = dict.fromkeys((name for name, *_ in found), DEFAULT)
    else:
        found, options = _planned(model, batch, sites, attention)
    frame = pl.DataFrame(
        found, schema=["site", "shape", "dtype", "calls", "rows", "bytes"], orient="row", schema_overrides=_TYPES
    )
    if steps is None:
        return Survey(frame, int(frame["bytes"].sum()), None)
    schedules = {id(one.every): schedule_of(every if one.every is None else one.every) for one in options.values()}
    counts = {key: sum(schedule.due(step) for step in range(steps)) for key, schedule in schedules.items()}
    due = pl.Series("due", [counts[id(options[site].every)] for site in frame["site"]], dtype=pl.Int64)
    frame = frame.with_columns(due, (pl.col("bytes") * due).alias("total"))
    return Survey(frame, int(frame["bytes"].sum()), int(frame["total"].sum()))


_TYPES = {"calls": pl.Int64, "rows": pl.Int64, "bytes": pl.Int64}
_Row = tuple[str, str, str, int, int, int]


class _Sizes:
    """Takes the place of a writer, and keeps what each site would have stored."""

    def __init__(self) -> None:
        self.found: dict[str, _Row] = {}

    def append(self, sites: Mapping[str, torch.Tensor | Lent], /, **columns: Any) -> None:
        for name, given in sites.items():
            value = given.tensor if isinstance(given, Lent) else given
            kept = row_count(value, columns.get("mask"))
            size = kept * (value.nbytes // max(row_count(value), 1))
            _, _, _, calls, before, bytes_before = self.found.get(name, (name, "", "", 0, 0, 0))
            self.found[name] = (name, _shape(value), _dtype(value), calls + 1, before + kept, bytes_before + size)


def _planned(
    model: nn.Module, batch: Data, sites: Sites, attention: Iterable[str]
) -> tuple[list[_Row], dict[str, Any]]:
    resolved = resolve(model, sites, optimizer=torch.optim.SGD([torch.zeros(1)], lr=0.0))
    forward = [one if not one.gradient else _without_gradient(one) for one in resolved.sites]
    taps, sizes = Taps(model, Resolved(forward, []), attention=attention), _Sizes()
    if taps.of_passes:
        with taps:
            record_pass(
                model, batch, taps=taps, due=taps.of_passes, account=Account(), writer=sizes, step=0, source="sites"
            )  # fmt: skip
    by_name = dict(plain_parameters(model))
    found = [sizes.found[tap.site.name] for tap in taps.of_passes if tap.site.name in sizes.found]
    found += [_parameter(one.name, by_name[one.parameter]) for one in resolved.parameters]
    options = {tap.site.name: tap.site.options for tap in taps} | {one.name: one.options for one in resolved.parameters}
    return found, options


def _everything(model: nn.Module, batch: Data) -> list[_Row]:
    found: dict[str, _Row] = {}
    handles = []

    def note(name: str, value: Any) -> None:
        # What cannot be recorded is no site.
        inside = [one for one in tensors(value) if one[1].layout in (torch.strided, torch.jagged)]
        for path, tensor in inside:
            site = name if len(inside) == 1 else name + path
            if tensor.is_nested:
                tensor = as_items(torch.cat(list(tensor.unbind())))
            rows = 1 if tensor.ndim == 0 else tensor.shape[0] * (tensor.shape[1] if tensor.ndim == 3 else 1)
            _, shape, dtype, calls, before, size = found.get(site, (site, _shape(tensor), _dtype(tensor), 0, 0, 0))
            found[site] = (site, shape, dtype, calls + 1, before + rows, size + tensor.nbytes)

    def watch(name: str, module: nn.Module, kind: str) -> None:
        if kind == "input":
            handles.append(
                module.register_forward_pre_hook(
                    lambda _, args, kwargs: note(name, dict(enumerate(args)) | kwargs), with_kwargs=True
                )
            )
        else:
            handles.append(module.register_forward_hook(lambda _, args, output: note(name, output)))

    try:
        for name, (module, kind) in places(model):
            watch(name, module, kind)
        nothing = Taps(model, Resolved([], []))
        with nothing:
            record_pass(
                model, batch, taps=nothing, due=[], account=Account(), writer=_Sizes(), step=0, source="sites"
            )  # fmt: skip
    finally:
        for handle in handles:
            handle.remove()
    return [*found.values(), *(_parameter(name, parameter) for name, parameter in plain_parameters(model))]


def _without_gradient(site: ResolvedSite) -> ResolvedSite:
    return ResolvedSite(site.name, site.module, site.kind, site.path, site.options, part=site.part)


def _parameter(name: str, parameter: torch.Tensor) -> _Row:
    return name, _shape(parameter), _dtype(parameter), 1, parameter.shape[0] if parameter.ndim else 1, parameter.nbytes


def _shape(value: torch.Tensor) -> str:
    return " x ".join(map(str, value.shape)) or "1"


def _dtype(value: torch.Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")
