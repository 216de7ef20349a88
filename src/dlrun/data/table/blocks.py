"""Read a large CSV in blocks of whole lines: polars maps a whole file into memory, and a block is soon released."""

import io
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import polars as pl

from dlrun.data.table.text import TableText
from dlrun.paths import open_plain

BLOCK, HEAD, PARTS = 2**23, 2**20, 32  # bytes of a block, at most and at least; blocks of a smaller file
WORKERS = 2  # blocks that are read at once: polars has little to do in parallel at the ends of each


def read_blocks(
    text: TableText, schema: Mapping[str, pl.DataType], convert: Callable[[pl.DataFrame], pl.DataFrame] | None
) -> pl.DataFrame | None:
    """Return all rows, a chunk for each block; None if a value is longer than a block. convert: of each block, if any.

    Raises polars' errors for values that do not fit the schema, and for lines of too many values.
    """
    frames: list[pl.DataFrame] = []
    content = len(text.source) if isinstance(text.source, bytes) else text.source.stat().st_size
    size = min(BLOCK, max(HEAD, content // PARTS))

    def read(block: bytes, is_first: bool) -> pl.DataFrame:
        frame = _read(text, block, schema, is_first)
        return convert(frame) if convert else frame

    with ThreadPoolExecutor(WORKERS) as threads:
        coming: deque[Future[pl.DataFrame]] = deque()
        for number, block in enumerate(_blocks(text.source, size)):
            if block is None:
                return None
            coming.append(threads.submit(read, block, number == 0))
            if len(coming) > WORKERS:
                frames.append(coming.popleft().result())
    return pl.concat([*frames, *(each.result() for each in coming)], rechunk=False)


def read_head(text: TableText, schema: Mapping[str, pl.DataType]) -> pl.DataFrame | None:
    """Return the first rows, those of about HEAD bytes; None if a value is longer than that."""
    block = next(_blocks(text.source, HEAD))
    return None if block is None else _read(text, block, schema, is_first=True)


def _read(text: TableText, block: bytes, schema: Mapping[str, pl.DataType], is_first: bool) -> pl.DataFrame:
    has_names, separator = text.form.header and is_first, text.form.separator or ","
    return pl.read_csv(block, separator=separator, has_header=has_names, schema=schema)


def _blocks(source: Path | bytes, size: int) -> Iterator[bytes | None]:
    """Yield the content in parts of about `size` bytes that end after a record; None where one does not end."""
    with io.BytesIO(source) if isinstance(source, bytes) else open_plain(source) as file:
        first = 0
        while True:
            file.seek(first + size)
            rest = len(file.readline())
            file.seek(first)
            part = file.read(size + rest)
            if not part:
                return
            end = len(part) if len(part) < size + rest else _end(part)
            first += end
            yield (part if end == len(part) else part[:end]) if end else None


def _end(part: bytes) -> int:
    """Return where the last record of whole lines ends: after an even number of quotes. 0: nowhere."""
    end = len(part)
    is_odd = b'"' in part and part.count(b'"') % 2
    while is_odd and end:  # the end of a line in a quoted value
        before = part.rfind(b"\n", 0, part.rfind(b'"', 0, end)) + 1
        is_odd ^= part.count(b'"', before, end) % 2
        end = before
    return end
