"""The data plane: HTTP in, routing, HTTP out, spliced streams."""
