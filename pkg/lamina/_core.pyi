"""The compiled data layer: one writer's life, and a reader's snapshot.

Nothing here is public; `lamina.runs` is the face over it. Every error is a child of
`lamina.errors.LaminaError`. Buffers are C-contiguous bytes in native little-endian order. Nothing that
reads, writes, copies or hashes holds the GIL.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, Literal, TypeAlias, final

import polars as pl
from numpy.typing import NDArray

from lamina.errors import LaminaError

Buffer: TypeAlias = NDArray[Any] | Memory
"""Whatever lends its bytes will do; Lamina hands over NumPy arrays. Python 3.11 has no type for the protocol."""

DType = str
"""`f64 f32 f16 bf16 f8_e4m3 f8_e5m2 i64 i32 i16 i8 u8 bool`, and for checkpoints also `u16 u32 u64 c64 c128`."""

ColumnType = Literal["int", "float", "bool", "str", "time"]

Column = tuple[str, ColumnType, Any, Buffer | None]
"""Name, type, values, validity.

Values are one Python scalar (constant over the rows; None is null), or a buffer of i64, f64 or u8 (0 or 1), or for
`str` a list of str or None. A `time` is i64: microseconds since the epoch, UTC. Validity is a u8 buffer (1 valid,
0 null) beside a buffer, or None.
"""

Site = tuple[str, DType, tuple[int, ...], Buffer]
"""Name, dtype, shape of one row's item (empty for a scalar), and rows * item bytes."""

Tensor = tuple[str, DType, tuple[int, ...], Buffer]
"""Dotted name, dtype, whole shape, bytes."""

@final
class ArrowArray:
    """An Arrow array or record batch that exports itself through the PyCapsule interface."""

    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]: ...

def version() -> str: ...
def syncs() -> int:
    """Syncs of files and folders that this process has made so far."""

def create(path: str, config: str) -> None:
    """Create a run at `path`, atomically. `config` is JSON text of an object. NotARunError if the path exists."""

ATTACHED: int
"""The step of a save whose parts are attached to the run, and of no step."""

def note(path: str, text: str, step: int | None = None) -> None:
    """Note a text, of a step if there is one; durable when it returns. SchemaError above 1 MiB."""

def rewind(path: str, step: int) -> None:
    """Hide what is durable of rows and metrics of `step` and later, and of checkpoints of later steps."""

def delete(path: str, sites: Sequence[str], steps: Sequence[tuple[int, int]], rows: Sequence[tuple[int, int]]) -> None:
    """Hide rows, or what they hold of some sites: those that satisfy all of what is given (spans hold both ends)."""

def positions(path: str) -> list[tuple[int, int]]:
    """Where every log ends now: writer and number of frames."""

def discard(
    path: str, what: Sequence[tuple[Sequence[str], Sequence[tuple[int, int]]]], before: Sequence[tuple[int, int]]
) -> None:
    """Hide parts of checkpoints (names, spans of steps that hold both ends) that were saved before these positions."""

@final
class CheckpointStream:
    """Writes checkpoints that come piece by piece, with a log of its own; `work` says what for, if not to record.

    They are all there once `commit` returns, and none of them before.
    """

    def __init__(self, path: str, work: str | None = None) -> None: ...
    def put(self, dtype: str, data: Buffer) -> bytes:
        """Write the chunks of some bytes of a tensor; return their keys. All pieces of a tensor but the last are whole
        numbers of MiB."""

    def save(
        self, step: int, parts: Sequence[tuple[str, str, str, Sequence[tuple[str, str, Sequence[int]]], bytes]]
    ) -> None:
        """Take up a checkpoint whose chunks were put: of each part name, tree, scalars, tensors (name, dtype, shape),
        and the keys of their chunks."""

    def commit(self) -> None:
        """Make the checkpoints durable, which shows them."""

    def close(self, error: str | None = None) -> None:
        """End the log; what was not committed is not there."""

def hash_buckets(data: Buffer, offsets: Buffer, count: int) -> bytes:
    """For each text `data[offsets[i]:offsets[i + 1]]` (offsets as i64) the first eight bytes of its BLAKE3, as a
    little-endian number, modulo `count` (at most 255): one byte a text."""

def sums_of_squares(
    dtype: str, tensors: Sequence[Buffer], minus: Sequence[Buffer] | None = None, *, threads: int = 1
) -> list[float]:
    """The sum of squares of each tensor (`f64`, `f32`, `f16` or `bf16`), or of each difference from the tensor of the
    same place in `minus`, by at most so many threads, whose number changes no bit. Half precision is widened before it
    is subtracted or squared; rows of 512 are summed in f32, and these sums in f64."""

@final
class Progress:
    """How far a function below that takes one has got; another thread may look, and ask it to stop."""

    def __init__(self) -> None: ...
    @property
    def bytes(self) -> tuple[int, int]:
        """Bytes done, and bytes to do as far as that is known."""

    def stop(self) -> None:
        """Ask the work to stop at the next safe place; it then raises."""

def verify(path: str, progress: Progress) -> tuple[int, int, list[tuple[str, str | None, int | None, str]]]:
    """Compute every hash of a run again. Files and bytes that were checked, and of everything that is not what was
    written: message, file, offset, and what cannot be read because of it."""

def compact(path: str, cold: Sequence[str], progress: Progress) -> dict[str, Any]:
    """Merge small row groups of writers that are done, leave hidden rows behind, code the rows of the sites in
    `cold`, and checkpoints. What was done: groups_before, groups_after, rows_dropped, bytes_before, bytes_after,
    chunks, chunk_bytes_before, chunk_bytes_after, working (ordinals of writers left alone), damages (message, file,
    offset of groups and chunks left as they are)."""

def gc(path: str, grace: float | None, progress: Progress) -> dict[str, Any]:
    """Condemn the files that nothing needs any more, drop those that were condemned `grace` seconds ago (None: a day),
    remove what is dropped. What was done: condemned and removed (files), bytes_freed, rows_dropped, left (file and
    reason), working (ordinals of writers left alone)."""

def merge(runs: Sequence[tuple[str, Snapshot]], path: str, config: str, progress: Progress) -> None:
    """Write what the runs (each with a name) show into a new run at `path`, with this JSON text as its config: wholly
    or not at all. SchemaError, before anything is written, if they contradict each other; NotARunError if the path
    exists."""

@final
class Coded:
    """A tensor's bytes as they may lie in packs of checkpoints: chunk by chunk as byte planes, or as they are where
    that saves less than 3 %."""

    def __init__(self, dtype: str, data: Buffer) -> None: ...
    @property
    def bytes(self) -> int:
        """How many they are, coded."""

    def read(self, out: Buffer) -> None:
        """Check and decode them into `out`, which has the tensor's size."""

@final
class Ticket:
    """What became of one append or save."""

    @property
    def state(self) -> Literal["staged", "written", "durable", "failed", "dropped"]: ...
    @property
    def error(self) -> Exception | None: ...
    def wait(self, timeout: float | None = None) -> bool:
        """Ask for a durable point and wait for it. True when durable, False after `timeout` seconds; raises
        the writer's error if it failed. Ctrl-C interrupts the wait, not the write."""

    def __await__(self) -> Generator[Any, None, bool]:
        """The same under asyncio: one thread a log tells all who await, and none of them holds the event loop."""

@final
class Memory:
    """Memory of a pool, as a writable buffer; it goes back when nobody holds it: no tensor, no view, no writer.

    Given to `Writer.append` as the bytes of a site it is lent: the writer takes no copy and writes from it later, so
    that nothing may be written to it any more.
    """

    def __len__(self) -> int: ...

@final
class Pool:
    """Memory that is used again, on the CPU; never more than was in use at one time. Thread-safe.

    `allocate` makes memory of so many bytes, as an object with a writable buffer that stays where it is.
    """

    def __init__(self, allocate: Callable[[int], Buffer] | None = None) -> None: ...
    def take(self, size: int) -> Memory:
        """Memory of so many bytes, whose contents are arbitrary. ValueError for none."""

    def held(self) -> tuple[int, int]:
        """Bytes in use, and bytes that wait to be used again."""

@final
class Shard:
    """A tensor that was staged for a checkpoint."""

    def keys(self) -> bytes:
        """The keys of its chunks, 32 bytes each. WriterError before its ticket says that it is durable."""

@final
class Writer:
    """A handle on the log that this process writes with these options, on a new log if there is none. Thread-safe. All
    work past the staging copy is done by the log's thread."""

    def __init__(
        self,
        path: str,
        *,
        rank: int | None = None,
        full: str = "block",
        durable_rows: int | None = None,
        durable_bytes: int | None = None,
        durable_seconds: float | None = 1.0,
    ) -> None: ...
    def check(self) -> None:
        """Raise the WriterError of a call that stages, if it would: closed, failed, or from before a fork."""

    @property
    def ordinal(self) -> int: ...
    @property
    def closed(self) -> bool: ...
    def append(self, sets: Sequence[tuple[int, Sequence[Site], Sequence[Column], Buffer | None]]) -> Ticket:
        """Stage sets of rows, all or none: for each the number of rows, the sites, and the metadata columns that they
        share; or no columns, and the names (i64) of rows that exist, to which the sites are attached."""

    def features(
        self,
        name: str,
        width: int,
        rows: int,
        codes: tuple[int | Buffer, tuple[DType, Buffer], tuple[DType, Buffer]],
        columns: Sequence[Column],
        names: Buffer | None,
        *,
        summed: bool,
    ) -> Ticket:
        """Stage sparse codes of `width` features: how many entries each row has, or row pointers (i64); ids and values,
        each with its dtype. Of rows with these columns, or of rows with these names (i64) that exist. A feature that
        stands twice in a row is an error unless values are `summed`."""

    def dropped(self) -> tuple[int, dict[str, int]]:
        """Rows that this handle dropped because the queue was full: in all, and by site."""

    def examples(self, rows: int, columns: Sequence[Column]) -> Ticket:
        """Stage rows of the examples table; its columns have a namespace of their own."""

    def log(
        self,
        step: int,
        time: int,
        names: Sequence[str],
        values: Sequence[float],
        *,
        site: str | None = None,
        source: str | None = None,
    ) -> None:
        """Stage metrics; `time` in microseconds since the epoch, UTC."""

    def save(self, step: int, parts: Sequence[tuple[str, str, str, Sequence[Tensor]]]) -> Ticket:
        """Stage a checkpoint: for each part its name, its tree (JSON, alike from save to save), its scalars
        (JSON, different from save to save) and its tensors."""

    def shard(self, tensor: Tensor) -> tuple[Ticket, Shard]:
        """Stage a tensor that no checkpoint holds, and nobody sees before `complete`, by whatever writer, names it."""

    def condemned(self) -> int:
        """How many files were condemned in all, as of now."""

    def complete(
        self,
        step: int,
        condemned: int,
        parts: Sequence[
            tuple[
                str,
                str,
                str,
                Sequence[tuple[str, DType, Sequence[int], Sequence[tuple[Sequence[int], Sequence[int], bytes]]]],
            ]
        ],
    ) -> Ticket:
        """Stage a checkpoint of shards that are durable, by whatever writers, and were stored when `condemned` files or
        more were condemned: of each part name, tree, scalars, and tensors: name, dtype, shape, and the shards that fill
        it, each where it begins, its lengths, and its keys. SchemaError if they do not fill it."""

    def flush(self) -> None:
        """Return when everything staged so far is durable."""

    def close(self, error: str | None = None) -> None:
        """Flush; the last handle also seals and writes the close record, with the `error` of every handle that was
        closed with one. Idempotent; nothing in a fork."""

@final
class Mapped:
    """Bytes of a pack in memory of this process alone, by the buffer protocol: writing to them changes no file."""

    def __len__(self) -> int: ...

@final
class Snapshot:
    """What a run held when it was opened. Immutable; open again to see more."""

    def __init__(
        self,
        path: str,
        *,
        strict: bool = False,
        io: Literal["auto", "mmap", "pread"] = "auto",
        verify: Literal["first", "always", "never"] = "first",
        hidden: bool = False,
    ) -> None: ...
    @property
    def id(self) -> str: ...
    @property
    def created(self) -> int:
        """Microseconds since the epoch, UTC."""

    @property
    def config(self) -> str: ...
    @property
    def sources(self) -> list[tuple[str, str, int, str, int]]:
        """Id, name, creation (microseconds), config and shift of the writers of each run that this one was copied or
        merged from."""

    @property
    def problems(self) -> list[tuple[str, str, int | None]]:
        """Message, file and offset of everything that was found damaged and passed over."""

    @property
    def bytes_read(self) -> tuple[int, int]:
        """Bytes of metadata blocks and of site blocks read from segments since opening."""

    @property
    def chunk_bytes_read(self) -> int:
        """Bytes of chunks of checkpoints read since opening."""

    def writers(self) -> list[dict[str, Any]]:
        """A dict a writer: ordinal, host, pid, rank, opened and closed (microseconds), error, dropped_rows, dropped
        (rows by site), and state: `finished`, `failed` (closed with an error), `running` (not closed; its process may
        live) or `abandoned`."""

    def notes(self) -> list[tuple[int, int | None, str]]:
        """Time (microseconds since the epoch, UTC), step and text of every note, in the order in which they came."""

    def sites(self) -> list[tuple[str, DType, tuple[int, ...], int, int, int, bool]]:
        """Name, dtype, item shape, rows, bytes, non-finite values, and whether they are sparse codes."""

    def columns(self, table: Literal["rows", "examples"] = "rows") -> list[tuple[str, ColumnType]]:
        """Declared columns; `row` is not among them."""

    def groups(
        self, some: Sequence[int] | None = None
    ) -> list[tuple[int, int, int, tuple[str, ...], int | None, int | None, Literal["own", "named", "attached"], int]]:
        """For every row group in order of its first row, or for those at some places: index, least row name, rows,
        sites, least and greatest step, how its rows come by their names, greatest row name. `own`: they follow the
        first without a gap; `named`: they stand in a block; `attached`: likewise, and they are rows that other groups
        made. What is hidden wholly (a group, a site of a group) is left out."""

    def names(self, group: int) -> bytes:
        """The names of a group's rows, i64 each."""

    def hidden(self, group: int, site: str | None = None) -> bytes | None:
        """A byte a row, 1 where it is hidden, or shows no value of the site; None if that is so for no row."""

    def constant(self, group: int, column: str) -> tuple[bool, Any]:
        """Whether the column is one value over the whole group (null where it is absent), and that value."""

    def metadata(self, group: int, columns: Sequence[str]) -> ArrowArray:
        """A record batch: `row` first if it is asked for, then the columns as asked; absent ones are null."""

    def vectors(self, group: int, site: str, indices: Buffer | None = None, *, widen: bool = True) -> ArrowArray:
        """Rows of a site: FixedSizeList of its dtype (a plain array if the item is a scalar). `indices` are i64
        positions in the group. bf16 and f8 become f32, or with `widen=False` u16 and u8 bits."""

    def examples(self) -> list[ArrowArray]:
        """Record batches of the examples table in order of writing, each with the columns that were written."""

    def metrics(self) -> ArrowArray:
        """A record batch: step, time (timestamp, us, UTC), name, site, source, rank, value, in order of writing."""

    def checkpoints(
        self,
    ) -> tuple[
        list[list[tuple[str, DType, tuple[int, ...], int]]], list[tuple[int, str, int, int, list[tuple[int, int]]]]
    ]:
        """The layouts, and the parts in order of their steps, of which `ATTACHED` is one. A layout is its tensors:
        name, dtype, shape, bytes. A part is its step, its name, its time (microseconds since the epoch, UTC), the
        number of its layout, and for the tensors of which a chunk is new their number and how many bytes that are."""

    def held_alone(self, parts: set[tuple[int, str]]) -> int:
        """Bytes of the chunks that nothing needs but these parts of checkpoints: step and name."""

    def part(self, step: int, part: str) -> tuple[str, str, str]:
        """The tree and the scalars of a part, as saved, and the log that holds them."""

    def box(
        self,
        step: int,
        part: str,
        index: int,
        offsets: Sequence[int],
        sizes: Sequence[int],
        out: Buffer,
        threads: int,
    ) -> None:
        """The bytes of a box of tensor `index` of a part into a writable buffer of exactly the right size."""

    def stretches(
        self, part: str, wanted: Sequence[tuple[int, int, int, Buffer]], threads: int
    ) -> list[tuple[int, LaminaError]]:
        """Fills writable buffers with stretches of tensors of a part: for each the step, the tensor's number, its first
        byte that is wanted, and the buffer. Returns those that could not be read, by their numbers, and why."""

    def map(self, step: int, part: str, tensor: int, threads: int) -> Mapped | str:
        """A tensor of a part as a map of its pack, verified, or why it has to be copied."""

def metadata_of(snapshot: Snapshot, groups: Sequence[int], columns: Sequence[str]) -> ArrowArray:
    """A record batch of metadata columns (`row` is none) over several groups, one behind the other."""

def where_true(mask: pl.Series) -> bytes:
    """Where a Boolean series is true: positions, i64 each, ascending."""

def column_zones(snapshot: Snapshot, column: str) -> ArrowArray:
    """A record batch with a row a group, in order of `Snapshot.groups()`: least, greatest (of the column's type, null
    if not known or if there is none), nulls, nans (null if not known), rows."""

def vectors_at(snapshot: Snapshot, site: str, groups: Buffer, positions: Buffer, *, widen: bool = True) -> ArrowArray:
    """Rows of a site wherever they lie, as `Snapshot.vectors` has them: for each its group (i64; negative: it has
    none and is null) and its position there (i64)."""

def codes_at(
    snapshot: Snapshot, site: str, groups: Buffer, positions: Buffer, features: Buffer | None, most: int
) -> tuple[int, ArrowArray]:
    """Active units of rows of sparse codes, for each row its group and position there (i64); of some features (i64,
    each once), or of all. Ends once there are `most` units: how many rows were looked at, and a record batch: at (which
    of the rows), feature, value."""

def feature_indexes(
    snapshot: Snapshot, site: str
) -> list[tuple[str, int, int, Literal["ready", "missing", "open", "damaged", "newer", "stale"]]]:
    """The segments that hold sparse codes of a site, in order: file, rows and active units (hidden ones included), and
    how the segment's index by feature stands: `open` while the segment is being written, `stale` if it is of other
    groups. What is damaged or newer is a problem of the snapshot from then on."""

def check_feature_indexes(snapshot: Snapshot, site: str, threads: int) -> None:
    """Reads all indexes of a site and looks at their checksums: `feature_indexes` knows from then on which are damaged,
    wherever they are."""

def build_feature_index(snapshot: Snapshot, site: str, file: str, threads: int) -> int:
    """Build or replace the index of a segment's codes, wholly or not at all; return its bytes. SchemaError while the
    segment is being written."""

def indexed_count(snapshot: Snapshot, site: str, features: Buffer) -> int:
    """How many units some features (i64) have in the groups that an index answers for, hidden ones included."""

def indexed_units(
    snapshot: Snapshot, site: str, features: Buffer, threads: int
) -> tuple[list[int], list[int], ArrowArray]:
    """The groups that an index answers for, ascending, and how many units of these features (i64) each of them has; and
    these active units in order of group, of place there and of feature: a record batch of row, feature, value. What is
    hidden is left out, and so are values of attached groups that do not count, because their row is not shown or has
    another value."""

def top_units(snapshot: Snapshot, site: str, feature: int, k: int) -> tuple[list[int], ArrowArray]:
    """The groups that an index answers for, ascending, and of them the k strongest units of one feature: a record batch
    of group, position, row, value, NaN last, of equal values the least row name first."""

def feature_stats(snapshot: Snapshot, site: str, threads: int) -> ArrowArray:
    """A record batch with a row a feature, in order: feature, count, mean, max, q10, q50, q90, q99, first_step,
    last_step; all but the first two are null where there are no values. From indexes where they answer for whole
    segments, else from the codes, with the same bins. Mean and max are NaN where a value is."""

def in_order_of_writing(snapshot: Snapshot, groups: Sequence[int]) -> list[int]:
    """These groups by writer, and those of one writer as they follow each other."""

def group_table(snapshot: Snapshot) -> tuple[ArrowArray, list[list[str]]]:
    """A record batch with a row a group, in order of `Snapshot.groups()`: first and last (row names), rows, attached (1
    where it is), sites, least_step and greatest_step (null where not known). `sites` counts in the list that comes
    with it: the sites of a group."""

def hiding_groups(snapshot: Snapshot) -> list[int]:
    """The groups of which some rows are hidden, or show no value of some site."""

@final
class SiteRows:
    """The rows of a site that were selected, at positions 0 to n - 1. Files are opened when they are first needed.

    Args:
        snapshot: Where they lie.
        site: The site.
        parts: Group by group the positions in the group (i64), or None for all. Consumed one by one.
    """

    def __init__(self, snapshot: Snapshot, site: str, parts: Iterable[tuple[int, Buffer | None]]) -> None: ...
    @staticmethod
    def restore(snapshot: Snapshot, site: str, state: list[tuple[str, int, int, bytes]]) -> SiteRows:
        """What `state` said of another snapshot of the same run. NotFoundError if a group is no longer there."""

    def state(self) -> list[tuple[str, int, int, bytes]]:
        """For every part its segment, the number of its group there, and which rows: 0 first and count (u64 each), 1 a
        bit a row, 2 a list (u32 each)."""

    def narrow(self, positions: Buffer) -> SiteRows:
        """Some of them, by position (i64)."""

    def narrow_span(self, start: int, stop: int) -> SiteRows:
        """Those from `start` to before `stop`."""

    def __len__(self) -> int: ...
    def ids(self) -> bytes:
        """The rows' names, i64 each."""

    def gather(self, positions: Buffer, out: Buffer, threads: int) -> None:
        """The rows at these positions (i64), in their order, into a writable buffer of just the right size."""

    def gather_codes(self, positions: Buffer, features: Buffer | None, out: Buffer, threads: int) -> None:
        """Of sparse codes at these positions the values of some features (i64), or all, row after row, into zeros."""

    def read(self, start: int, out: Buffer, threads: int) -> None:
        """The rows from `start` on, as many as fill `out`."""

    def will_need(self, spans: Sequence[tuple[int, int]]) -> None:
        """Start to read the rows from the first to before the second position of each span; waits for none."""

@final
class Order:
    """The order in which rows 0 to n - 1 come in an epoch, in constant memory."""

    @staticmethod
    def stored(rows: int) -> Order:
        """As they lie."""

    @staticmethod
    def exact(rows: int, seed: int, epoch: int) -> Order:
        """A permutation."""

    @staticmethod
    def block(rows: int, seed: int, epoch: int, run: int, window: int) -> Order:
        """Runs of `run` rows in permuted order, their rows permuted within windows: of as many runs as
        `window` rows hold."""

    def __len__(self) -> int: ...
    def rows(self, start: int, stop: int) -> bytes:
        """The rows that come at these places, i64 each."""

    def ahead(self, place: int, most: int) -> tuple[int, list[tuple[int, int]]]:
        """What to read ahead from a place on: up to which place, and the spans of rows that come until there. In stored
        order `most` places, in block order the place's window, in exact order nothing up to the end."""
