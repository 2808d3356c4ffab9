"""Columns of tables from strangers: every value finds a type, and every table of a source the same one.

JSON and loosely typed dumps hold what Arrow has no type for: numbers beside words, integers over 64 bits, halves of
characters. Such a column becomes text, in all tables of the source, so that whoever reads them as one table can.

And Parquet dumps hold what JSON has no type for, which is what KEY.json of a sample is written in: times, decimals,
bytes. They become text as well, and what is no number (NaN) becomes nothing.
"""

import datetime
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from owl3.shards import write_table


def column_of(values: list[Any]) -> pa.Array:
    """An Arrow column of what the dump holds; values that have no type in common, or none at all, become text."""
    values = [plain_value(value) for value in values]
    try:
        column = pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeError):
        return _as_text(values)
    return column if _fits_parquet(column.type) else _as_text(values)


def plain_value(value: Any) -> Any:
    """The value in JSON's own types."""
    match value:
        case None | str() | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {encodable(str(name)): plain_value(entry) for name, entry in value.items()}
        case list() | tuple():
            return [plain_value(entry) for entry in value]
        case bytes():
            return _text_of(value)
        case datetime.date() | datetime.time():
            return value.isoformat()
        case datetime.timedelta():
            return value.total_seconds()
    return str(value)


def _text_of(value: bytes) -> str:
    """Bytes as the text they mostly are, else as hex digits."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.hex()


def _fits_parquet(kind: pa.DataType) -> bool:
    """Parquet has no place for objects without a key."""
    if pa.types.is_struct(kind) and not kind.num_fields:
        return False
    return all(_fits_parquet(kind.field(number).type) for number in range(kind.num_fields))


def _as_text(values: list[Any]) -> pa.Array:
    return pa.array([None if value is None else encodable(str(value)) for value in values], pa.string())


def encodable(text: str) -> str:
    """The text without lone surrogates, which JSON may hold and no file."""
    return text.encode("utf-8", "replace").decode("utf-8")


def agree_on_types(tables: list[Path]) -> None:
    """Give each column one type in all tables of a source: a later one may hold what an earlier one did not.

    Whoever reads several tables as one would stop at the first that differs.
    """
    types: dict[str, pa.DataType] = {}
    schemas = [pq.read_schema(path) for path in tables]
    for field in (field for schema in schemas for field in schema):
        types[field.name] = _common_type(types.get(field.name, field.type), field.type)
    for path, schema in zip(tables, schemas, strict=True):
        other = [field.name for field in schema if field.type != types[field.name]]
        if not other:
            continue
        table = pq.read_table(path)
        for name in other:
            column, wanted = table.column(name), types[name]
            as_wanted = _as_text(column.to_pylist()) if wanted == pa.string() else column.cast(wanted, safe=False)
            table = table.set_column(table.schema.get_field_index(name), name, as_wanted)
        write_table(path, table)


def _common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The type that holds values of both; text holds all."""
    try:
        schemas = [pa.schema([("values", kind)]) for kind in (one, other)]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.string()
