"""One request under way: attempts, retries, the connection to the engine, the records it leaves. May import endpoints and below."""
