"""What a stack decides by arithmetic: its replicas and their GPUs. Pure; it may import fleet's pure files, engines, spec and core."""
