"""The client side: connections, keys, routing to exchanges, built-in routes, the gateway itself. May import everything but process."""
