"""One small text file as bytes: is it UTF-8, and if not, what is it for certain?"""

import codecs
from dataclasses import dataclass

BOM = codecs.BOM_UTF8
_WIDE_BOMS = (  # the longer first: UTF-32 of little end begins like UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True, slots=True)
class Text:
    """What the bytes of a file say.

    Attributes:
        text: without a byte order mark; None where the encoding is not known.
        encoding: that it was decoded by: "utf-8", "utf-16", "utf-32", or what `fallback` named.
        has_bom: a UTF-8 byte order mark stands before it.
    """

    text: str | None
    encoding: str
    has_bom: bool = False

    @property
    def is_utf8(self) -> bool:
        """Whether a trainer can read it."""
        return self.encoding == "utf-8"


def decode(data: bytes, fallback: str | None = None) -> Text:
    """Decode a text file.

    Certain are UTF-8, and UTF-16 and UTF-32 with a byte order mark. Nothing else is guessed: any bytes are
    Latin-1, and most are Shift JIS.

    Args:
        fallback: what it is where it is not certain, as Python names encodings.
    """
    if data.startswith(BOM):
        try:
            return Text(data.decode("utf-8-sig"), "utf-8", has_bom=True)
        except UnicodeDecodeError:
            return _decode_as(data, fallback)
    for bom, encoding in _WIDE_BOMS:
        if data.startswith(bom):
            return _decode_as(data, encoding)
    try:
        return Text(data.decode("utf-8"), "utf-8")
    except UnicodeDecodeError:
        return _decode_as(data, fallback)


def _decode_as(data: bytes, encoding: str | None) -> Text:
    if encoding is not None:
        try:
            return Text(data.decode(encoding), encoding)
        except UnicodeError:
            pass
    return Text(None, "unknown")
