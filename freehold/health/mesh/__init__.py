"""The packet-loss mesh without its sockets: frames, counts, streams and bounds on loss; pure. It may import the model."""
