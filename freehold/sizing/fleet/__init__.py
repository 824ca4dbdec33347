"""Many replicas: how many a traffic needs, links and disks, which GPU and engine. May import `replica` and `model`."""
