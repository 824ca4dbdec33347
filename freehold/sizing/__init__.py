"""Does a model fit, how fast is it, how many replicas, which links and disks. Pure: numbers in, ranges out."""
