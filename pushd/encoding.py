"""JSON as this server writes it: UTF-8, with U+2028 and U+2029 escaped."""

import msgspec

_encode = msgspec.json.Encoder().encode


def encode(value: object) -> bytes:
    """Encode as JSON."""
    data = _encode(value)
    if data.isascii():
        return data
    return data.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
