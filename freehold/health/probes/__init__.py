"""One file per probe, each with one value `PROBE`; the folder is the registry. A probe is pure: views in, findings out."""
