"""JSON as the board stores it: exact, compact, and valid for every reader of the database.

Integers of any size keep their digits, text its code points; NaN and infinities do not exist in JSON and are refused. Half of a surrogate
pair, which models do emit when an emoji is cut in two, cannot be stored as UTF-8: in JSON it is escaped, in plain text replaced.
"""

import json
from typing import Any

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_encode_ascii = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode

loads = json.loads


def dumps(value: Any) -> str:
    """Compact JSON of a JSON-ready value. Raises TypeError or ValueError for anything else."""
    text = _encode(value)
    return text if storable(text) else _encode_ascii(value)


def storable(text: str) -> bool:
    """Whether the text can be stored as UTF-8."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def clean(text: str) -> str:
    """The text with what cannot be stored as UTF-8 replaced by `?`."""
    return text if storable(text) else text.encode(errors="replace").decode()
