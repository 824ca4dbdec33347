"""Every reading that a GPU may have, and what raw answers of NVML become: pure. It may import the model."""
