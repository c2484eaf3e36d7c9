"""What a run answers about its sparse codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from lamina.errors import NotFoundError, SchemaError
from lamina.runs import globs, indexing, stored, top_examples
from lamina.runs.buffers import is_integer
from lamina.runs.coactivations import coactivations
from lamina.runs.feature_stats import feature_stats
from lamina.runs.nearest import nearest_names
from lamina.runs.opened import Opened
from lamina.runs.steps import Steps
from lamina.runs.stored_codes import numbers

_MOST = 1 << 40
"""More activations of a feature than there are."""


class Featured(Opened):
    """A run, as far as its sparse codes go: their frame, what each feature does, and where."""

    def features(self, site: str) -> pl.LazyFrame:
        """The long frame of sparse codes: a row for each active unit, in order of rows, and of features within a row.

        Columns are `row`, the metadata columns, `feature` and `value`. A row without an active unit does not show. A
        filter over `feature` alone, or over metadata alone, is evaluated before codes are read: only what both leave
        becomes rows of the frame. Units of few features come from the indexes, as far as they are built
        (`Run.index`), with memory for what is found: 250 MB at most, since what is more is scanned for.

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
            Where the indexes are built and no row is hidden, reading what they say of each feature; else a pass over
            the codes. Memory for the bins of the histogram that have values, whatever the number of rows.

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
        self._check_sparse(site)
        return feature_stats(self._wide.features(site))

    def coactivations(self, site: str, pairs: Any) -> pl.LazyFrame:
        """How often two features of sparse codes are active in the same row: one row for each pair that is asked for.

        Columns: feature, other, count (rows in which both are active), expected (how many there would be if they were
        independent: the product of their counts over the number of rows that have codes), phi (the correlation of being
        active; null where a feature is active in no row, or in all).

        Args:
            site: The site's name.
            pairs: Pairs of features, such as `[(3, 17), (3, 40)]` or an array [pairs, 2].

        Raises:
            NotFoundError: There is no such site; the hint lists the nearest that hold codes.
            SchemaError: The site holds no sparse codes, `pairs` are none, or there is no such feature.

        Cost:
            Where the indexes are built, reading the units of the features of the pairs; else a pass over the codes.

        Example:
            >>> import lamina, polars as pl, tempfile, torch
            >>> run = lamina.Run.create(tempfile.mkdtemp() + "/run")
            >>> with run.writer() as writer:
            ...     codes = torch.tensor([[1.0, 3.0, 0.0], [2.0, 5.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 2.0]])
            ...     ticket = writer.features("mlp.output/sae", codes.to_sparse(), step=4)
            >>> found = run.refresh().coactivations("mlp.output/sae", [(0, 1), (0, 2)])
            >>> found.with_columns(pl.col("phi").round(3)).collect().rows()
            [(0, 1, 2, 1.5, 0.577), (0, 2, 0, 1.0, -1.0)]
        """
        width = self._check_sparse(site)
        hint = "give pairs of features, such as [(3, 17), (3, 40)]"
        return coactivations(self._wide.features(site), numbers("pairs=", pairs, width, hint, columns=2))

    def top_examples(
        self, site: str, feature: int, *, k: int = 20, context: int = 8, step: Steps = None
    ) -> pl.DataFrame:
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
            step: A step, several, or a slice of steps: over a training a feature means now this, now that.

        Raises:
            NotFoundError: There is no such site, or step; the hint lists the nearest.
            SchemaError: The site holds no sparse codes, or has no such feature; `k` or `context` is impossible.

        Cost:
            Where the indexes are built, the k strongest units of each segment, and what lies around them; else a pass
            over the codes.

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
        width = self._check_sparse(site)
        if not is_integer(feature) or not 0 <= feature < width:
            raise SchemaError(f"feature {feature!r} of codes {width} wide", hint=f"they are 0 to {width - 1}")
        for name, given, least in (("k", k, 1), ("context", context, 0)):
            if not is_integer(given) or given < least:
                raise SchemaError(f"{name}={given!r}", hint=f"give an integer, at least {least}")
        early = self._wide.condition(step, [site])
        codes = self._wide.features(site)
        # products of NumPy's integers would overflow
        found = top_examples.top_examples(codes, int(feature), min(int(k), _MOST), int(context), early)
        return stored.with_examples(self._snapshot, self._examples, found)

    def index(self, sites: str | Sequence[str] | None = None, *, progress: bool = True) -> indexing.Indexing:
        """Indexes sparse codes: which rows each feature is active in, so that questions about few features read those.

        Each segment that is no longer written to has an index of its own for each site, beside it in the run's folder
        `index/`. Those that are missing, damaged or of another version are built; the others stay once their checksums
        were looked at. Whatever stops it, the next call goes on. Indexes are never needed: every question has the same
        answer without them. They are built in the background as large segments fill up and writers are closed
        (`Run.writer`), and where a question finds one damaged, or none of a large segment; they go with the next `gc`
        once a compaction has replaced their segments.

        Args:
            sites: Globs or names; by default all sites of sparse codes.
            progress: Whether to show a bar on a terminal.

        Raises:
            NotFoundError: No site matches.
            SchemaError: None of those that match holds sparse codes.
            DamagedError: Codes are not what was written.
            StorageError: The file system refused; what was built stays.

        Cost:
            A pass over the codes of those segments, and up to 256 MB of memory; of indexes that are ready a read.

        Example:
            >>> import lamina, tempfile, torch
            >>> run = lamina.Run.create(tempfile.mkdtemp() + "/run")
            >>> with run.writer() as writer:
            ...     ticket = writer.features("mlp.output/sae", torch.eye(4).to_sparse(), step=0)
            >>> run.refresh().index().segments.select("site", "rows", "state").rows()
            [('mlp.output/sae', 4, 'missing')]
            >>> run.indexes().select("file", "units", "state").rows()
            [('segments/000000-000000.safetensors', 4, 'ready')]
        """
        return indexing.index(self._snapshot, self._indexed(sites), progress=progress)

    def indexes(self, sites: str | Sequence[str] | None = None) -> pl.DataFrame:
        """One row for each segment that holds sparse codes of a site: site, file, rows, units, state.

        The state of its index is "ready", "missing", "open" (the segment is still written to, and has none yet),
        "damaged", "newer" (than this Lamina) or "stale" (of other rows).

        Args:
            sites: As in `index`.

        Raises:
            NotFoundError: As in `index`.
            SchemaError: As in `index`.
        """
        return indexing.states(self._snapshot, self._indexed(sites))

    def _indexed(self, sites: str | Sequence[str] | None) -> list[str]:
        """The sites of sparse codes among some."""
        if sites is None:
            return sorted(self._wide.sparse)
        found = globs.select(sites, [name for name, *_ in self._snapshot.sites()])
        if not (sparse := sorted(self._wide.sparse.keys() & found)):
            raise SchemaError(
                f"{', '.join(found) or 'sites=[]'}: no sparse codes", hint="only they are indexed by feature"
            )
        return sparse

    def _check_sparse(self, site: str) -> int:
        """How many features a site of sparse codes has."""
        if isinstance(site, str) and site in self._wide.sparse:
            return self._wide.sparse[site]
        if any(name == site for name, *_ in self._snapshot.sites()):
            raise SchemaError(f"site {site!r} holds no sparse codes", hint="run.activations(name) shows it")
        raise NotFoundError(f"no site {site!r}", hint=nearest_names(str(site), sorted(self._wide.sparse)))
