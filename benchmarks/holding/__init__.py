"""The measurements of benchmarks/hold.py, one file each."""
