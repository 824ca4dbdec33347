"""What a model is to arithmetic: its shape, from the catalog, a config.json or a GGUF header. Imports nothing else of sizing."""
