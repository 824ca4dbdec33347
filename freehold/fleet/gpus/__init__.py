"""Which replica gets which GPUs. Pure; may import `fleet.decisions`."""
