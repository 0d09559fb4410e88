"""The head of a request, as bytes: is it within bounds, and does everybody read it in the same way?

It guarantees that whatever passes has one meaning: lines end in CRLF, none is folded, there is one Host, one length of
the body or chunks but not both, so that no proxy before us can have seen another request in the same bytes (request
smuggling, RFC 9112 section 11.2). Names and values are checked by h11 afterwards. It knows no connection and no clock.
"""

from __future__ import annotations

import re

from openwork.serve.errors import ApiError, bad_request
from openwork.serve.settings import HttpLimits

_HOST = re.compile(rb"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_ONCE = (b"host", b"content-length", b"transfer-encoding")
_LONE = re.compile(rb"\r(?!\n)|(?<!\r)\n")


def refusal(status: int, message: str, code: str) -> ApiError:
    """An error that ends the connection, because what follows on it cannot be trusted."""
    return ApiError(status, "invalid_request_error", code, message, headers={"Connection": "close"})


def not_http(what: str) -> ApiError:
    return refusal(400, f"This is not a valid HTTP/1.1 request: {what}.", "bad_http")


def find_end(data: bytearray, limits: HttpLimits) -> int | None:
    """Where the head ends in the bytes so far, behind its blank line; None: more has to come.

    Raises ApiError 400 for what can no longer become a head, 414 and 431 for one above its bounds. Takes time in
    proportion to the bounds, however much has arrived.
    """
    if data and not 0x21 <= data[0] <= 0x7E:
        raise not_http("it does not begin with a method; TLS is not spoken here")
    line = data.find(b"\r\n", 0, limits.line_bytes + 2)
    if line < 0:
        if len(data) >= limits.line_bytes + 2:
            raise refusal(414, f"The request line may have {limits.line_bytes} bytes.", "uri_too_long")
        if b"\n" in data:
            raise not_http("a line does not end in CRLF")
        return None
    end = data.find(b"\r\n\r\n", line, line + limits.header_bytes + 6)
    shown = bytes(data[: end if end >= 0 else line + limits.header_bytes + 6])
    if _LONE.search(shown.removesuffix(b"\r")):
        raise not_http("a line does not end in CRLF")
    if end < 0 and len(data) >= line + limits.header_bytes + 6:
        raise refusal(431, f"All headers together may have {limits.header_bytes} bytes.", "headers_too_large")
    if shown.count(b"\r\n", line + 2) > limits.num_headers - (end >= 0):  # the last one's end is not shown
        raise refusal(431, f"There may be {limits.num_headers} headers.", "too_many_headers")
    return None if end < 0 else end + 4


def check_fields(head: bytes, limits: HttpLimits) -> None:
    """Hold a whole head against the rules of framing. Raises ApiError 400 or 413."""
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    _method, _, rest = first.partition(b" ")
    target, _, version = rest.partition(b" ")
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise not_http("the version is neither HTTP/1.1 nor HTTP/1.0")
    if not target.startswith(b"/"):
        raise not_http("the target is not a path")
    fields: dict[bytes, bytes] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        name = name.lower()
        if not colon or line[:1] in (b" ", b"\t"):
            raise not_http("a header is not a name, a colon and a value on one line")
        if name in _ONCE and name in fields:
            raise not_http(f"{name.decode()} is given more than once")
        fields[name] = value.strip(b" \t")
    host = fields.get(b"host")
    if (host is None and version == b"HTTP/1.1") or (host is not None and not _HOST.fullmatch(host)):
        raise not_http("Host is missing, empty or not a name")
    _check_length(fields, version, limits)


def _check_length(fields: dict[bytes, bytes], version: bytes, limits: HttpLimits) -> None:
    length, coding = fields.get(b"content-length"), fields.get(b"transfer-encoding")
    if coding is not None:
        if length is not None:
            raise not_http("it has both Content-Length and Transfer-Encoding")
        if version == b"HTTP/1.0" or coding.lower() != b"chunked":
            raise not_http("the only Transfer-Encoding there is, is chunked, in HTTP/1.1")
    elif length is not None:
        if not _LENGTH.fullmatch(length):
            raise not_http("Content-Length is not a whole number")
        if int(length) > limits.body_bytes:
            raise too_large(limits)


def too_large(limits: HttpLimits) -> ApiError:
    return refusal(413, f"The body may have {limits.body_bytes} bytes.", "body_too_large")


def empty_body() -> ApiError:
    return bad_request("The body is empty; it must be a JSON object.", code="empty_body")
