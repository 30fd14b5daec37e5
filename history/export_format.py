"""The formats of an export, each written batch by batch in constant memory."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, BinaryIO, Final, Protocol, assert_never

import msgspec

from ..errors import ExportFailed
from .exported_job import COLUMNS, EVENTS, ColumnKind, Record


class ExportFormat(StrEnum):
    """How an export is written."""

    #: One JSON object in each line.
    JSONL = "jsonl"
    #: With a header, quoted as RFC 4180 says; safe to open in a spreadsheet.
    CSV = "csv"
    #: Typed columns in row groups, by pyarrow.
    PARQUET = "parquet"


class JobWriter(Protocol):
    """Writes records to a stream that the caller owns."""

    def write(self, records: Sequence[Record]) -> None:
        """Add records."""
        ...

    def finish(self) -> None:
        """Write what belongs at the end."""
        ...


def writer_of(export_format: ExportFormat, stream: BinaryIO, *, events: bool) -> JobWriter:
    """Return a writer of a format; ``events`` says whether each record has its job's events.

    Raises:
        ExportFailed: when the format needs something that is not installed.
    """
    match export_format:
        case ExportFormat.JSONL:
            return JsonLinesWriter(stream)
        case ExportFormat.CSV:
            return CsvWriter(stream, events=events)
        case ExportFormat.PARQUET:
            return ParquetWriter(stream, events=events)
        case _:
            assert_never(export_format)


class JsonLinesWriter:
    """Writes one JSON object in each line."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, records: Sequence[Record]) -> None:
        """Add records."""
        self._stream.write(json_lines(records))

    def finish(self) -> None:
        """Nothing is left to write."""


def json_lines(records: Sequence[Record]) -> bytes:
    """Return the records as lines of JSON."""
    return b"".join(msgspec.json.encode(record) + b"\n" for record in records)


# A spreadsheet takes a text that begins like this for a formula; the apostrophe makes it a text again. What begins
# with an apostrophe gets one more, so that taking the first one away always gives the text back.
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20", "'")


class CsvWriter:
    """Writes a table of texts, none of which a spreadsheet takes for a formula."""

    def __init__(self, stream: BinaryIO, *, events: bool) -> None:
        self._stream = stream
        self._columns = _columns(events)
        self._write_rows([list(self._columns)])

    def write(self, records: Sequence[Record]) -> None:
        """Add records."""
        self._write_rows([[_cell(record[name], kind) for name, kind in self._columns.items()] for record in records])

    def finish(self) -> None:
        """Nothing is left to write."""

    def _write_rows(self, rows: list[list[str]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text).writerows(rows)
        self._stream.write(text.getvalue().encode())


def _cell(value: Any, kind: ColumnKind) -> str:
    if value is None:
        return ""
    match kind:
        case ColumnKind.TEXT:
            return _harmless(str(value))
        case ColumnKind.JSON:
            return _json_text(value) if isinstance(value, int | float) else _harmless(_json_text(value))
        case ColumnKind.TIME:
            return _moment(value)
        case ColumnKind.BOOLEAN:
            return "true" if value else "false"
        case ColumnKind.INTEGER | ColumnKind.NUMBER:
            return repr(value)
        case _:
            assert_never(kind)


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def _moment(moment: datetime) -> str:
    return str(msgspec.to_builtins(moment))


class ParquetWriter:
    """Writes typed columns, a row group for each few thousand records."""

    _GROUP: Final = 5_000
    #: Bytes of text after which a row group is written even if it has fewer records.
    _GROUP_BYTES: Final = 16 * 2**20

    def __init__(self, stream: BinaryIO, *, events: bool) -> None:
        arrow, parquet = _pyarrow()
        self._arrow = arrow
        self._columns = _columns(events)
        self._schema = arrow.schema([(name, _arrow_type(arrow, kind)) for name, kind in self._columns.items()])
        self._file = parquet.ParquetWriter(stream, self._schema, compression="zstd")
        self._waiting: list[Record] = []
        self._bytes = 0

    def write(self, records: Sequence[Record]) -> None:
        """Add records."""
        for record in records:
            row = {name: _value(record[name], kind) for name, kind in self._columns.items()}
            self._waiting.append(row)
            self._bytes += sum(len(value) for value in row.values() if isinstance(value, str))
            if len(self._waiting) >= self._GROUP or self._bytes >= self._GROUP_BYTES:
                self._write_group()

    def finish(self) -> None:
        """Write the last row group and the list of all of them; what came before is of no use without it."""
        if self._waiting:
            self._write_group()
        self._file.close()

    def _write_group(self) -> None:
        self._file.write_table(self._arrow.Table.from_pylist(self._waiting, schema=self._schema))
        self._waiting, self._bytes = [], 0


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ExportFailed(
            "Parquet needs pyarrow, which is not installed: pip install 'jobledger[parquet]'."
        ) from error
    return pyarrow, pyarrow.parquet


def _arrow_type(arrow: Any, kind: ColumnKind) -> Any:
    match kind:
        case ColumnKind.TEXT | ColumnKind.JSON:
            return arrow.string()
        case ColumnKind.INTEGER:
            return arrow.int64()
        case ColumnKind.NUMBER:
            return arrow.float64()
        case ColumnKind.BOOLEAN:
            return arrow.bool_()
        case ColumnKind.TIME:
            return arrow.timestamp("us", tz="UTC")
        case _:
            assert_never(kind)


def _value(value: Any, kind: ColumnKind) -> Any:
    return _json_text(value) if kind is ColumnKind.JSON and value is not None else value


def _json_text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _columns(events: bool) -> dict[str, ColumnKind]:
    columns = {column.name: column.kind for column in COLUMNS}
    return columns | {EVENTS: ColumnKind.JSON} if events else columns
