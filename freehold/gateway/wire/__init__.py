"""HTTP bytes of both sides: request, headers, framing, bodies, errors. Imports no other part of the gateway."""
