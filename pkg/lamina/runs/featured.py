"""What a run answers about its sparse codes."""

from __future__ import annotations

import polars as pl

from lamina.errors import NotFoundError, SchemaError
from lamina.runs import stored, top_examples
from lamina.runs.feature_stats import feature_stats
from lamina.runs.nearest import nearest_names
from lamina.runs.opened import Opened


class Featured(Opened):
    """A run, as far as its sparse codes go: their frame, what each feature does, and where."""

    def features(self, site: str) -> pl.LazyFrame:
        """The long frame of sparse codes: a row for each active unit, in order of rows, and of features within a row.

        Columns are `row`, the metadata columns, `feature` and `value`. A row without an active unit does not show. A
        filter over `feature` alone, or over metadata alone, is evaluated before codes are read: only what both leave
        becomes rows of the frame.

        Args:
            site: The site's name.

        Raises:
            NotFoundError: There is no such site; the hint lists the nearest that hold codes.
            SchemaError: The site holds no sparse codes.

        Example:
            >>> import lamina, polars as pl, tempfile, torch
            >>> run = lamina.Run.create(tempfile.mkdtemp() + "/run")
            >>> with run.writer() as writer:
            ...     codes = torch.tensor([[0.0, 3.0, 1.0], [2.0, 0.0, 5.0]]).to_sparse()
            ...     ticket = writer.features("mlp.output/sae", codes, step=0, example=[7, 8])
            >>> strongest = run.refresh().features("mlp.output/sae").filter(pl.col("feature") == 2)
            >>> strongest.top_k(1, by="value").select("example", "value").collect().rows()
            [(8, 5.0)]
        """
        self._check_sparse(site)
        return self._wide.features(site).frame()

    def feature_stats(self, site: str) -> pl.LazyFrame:
        """One row a feature of sparse codes, in order: how often it is active, how strongly, and when.

        Columns: feature, count (rows in which it is active), density (of all rows that have codes), mean and max of its
        values where it is active, q10, q50, q90 and q99 of them, first_step and last_step at which it was active, dead
        (it never was). Quantiles come from a histogram with 8 bins for each doubling, infinities and NaN left out: they
        are within 4.5 % of a value at which the quantile lies. Mean and max are NaN where a value is.

        Args:
            site: The site's name.

        Raises:
            NotFoundError: There is no such site; the hint lists the nearest that hold codes.
            SchemaError: The site holds no sparse codes.

        Cost:
            A pass over the codes; memory for the bins of the histogram that have values, whatever the number of rows.

        Example:
            >>> import lamina, tempfile, torch
            >>> run = lamina.Run.create(tempfile.mkdtemp() + "/run")
            >>> with run.writer() as writer:
            ...     codes = torch.tensor([[0.0, 3.0, 1.0], [0.0, 0.0, 5.0]]).to_sparse()
            ...     ticket = writer.features("mlp.output/sae", codes, step=4)
            >>> stats = run.refresh().feature_stats("mlp.output/sae")
            >>> stats.select("feature", "count", "density", "mean", "first_step", "dead").collect().rows()
            [(0, 0, 0.0, None, None, True), (1, 1, 0.5, 3.0, 4, False), (2, 2, 1.0, 3.0, 4, False)]
        """
        width, rows = self._check_sparse(site)
        return feature_stats(self._wide.features(site), width, rows)

    def top_examples(self, site: str, feature: int, *, k: int = 20, context: int = 8) -> pl.DataFrame:
        """Where a feature of sparse codes is most active, with the rows around it in the same example.

        Columns: rank (1 is the strongest), offset (positions from the strongest row), value (of this feature; 0 where
        it is not active), the metadata columns, and those of the run's examples, such as texts. Rows of equal value
        rank by their names, NaN last. Rows around are those of the same example, step, source and further reserved
        columns, at most `context` positions away, as far as they have codes; a row stands there once for each
        activation that it is near.

        Args:
            site: The site's name.
            feature: Which feature.
            k: How many activations.
            context: How many positions on either side; without a column `position` there is no context.

        Raises:
            NotFoundError: There is no such site; the hint lists the nearest that hold codes.
            SchemaError: The site holds no sparse codes, or has no such feature.

        Cost:
            Two passes over the codes, which read nothing but them.

        Example:
            >>> import lamina, tempfile, torch
            >>> run = lamina.Run.create(tempfile.mkdtemp() + "/run")
            >>> with run.writer() as writer:
            ...     codes = torch.tensor([[[0.0, 3.0], [0.0, 0.0], [1.0, 5.0]]])
            ...     ticket = writer.features("mlp.output/sae", codes, threshold=0, step=4, example=[7])
            >>> shown = run.refresh().top_examples("mlp.output/sae", 1, k=1, context=1)
            >>> shown.select("rank", "offset", "value", "example", "position").rows()
            [(1, -1, 0.0, 7, 1), (1, 0, 5.0, 7, 2)]
        """
        width, _ = self._check_sparse(site)
        if isinstance(feature, bool) or not isinstance(feature, int) or not 0 <= feature < width:
            raise SchemaError(f"feature {feature!r} of codes {width} wide", hint=f"they are 0 to {width - 1}")
        rows = self._wide.scan([site], None, None)[0].frame().select("row", *self._wide.columns)
        found = top_examples.top_examples(self._wide.features(site).frame(), rows, feature, k, context)
        return stored.with_examples(self._snapshot, found)

    def _check_sparse(self, site: str) -> tuple[int, int]:
        """How many features a site of sparse codes has, and how many rows."""
        for name, _, shape, rows, *_, sparse in self._snapshot.sites():
            if name == site and sparse:
                return shape[0], rows
            if name == site:
                raise SchemaError(f"site {site!r} holds no sparse codes", hint="run.activations(name) shows it")
        raise NotFoundError(f"no site {site!r}", hint=nearest_names(site, sorted(self._wide.sparse)))
