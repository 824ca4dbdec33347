"""One replica: memory, split over GPUs, speed by the calibrated roofline. May import `model`."""
