"""The state directory of a running controller and its control socket, both ends. May import the whole of `fleet`."""
