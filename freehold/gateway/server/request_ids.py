"""Ids of requests whose client sent none."""

from freehold.core.ids import request_ids_in
from freehold.gateway.wire.request import ID_NAME, Request

fresh_id_line = request_ids_in(ID_NAME, b"\r\n")
"""Returns the header line of an id that no other request has."""


def unnamed() -> Request:
    """Return a stand-in for a request that could not be read, with an id by which its error is found."""
    request = Request()
    request.name(fresh_id_line)
    return request
