"""Sees the GPU, the disk, the network and the engine, and tells a software bug from a hardware failure with evidence."""
