"""One file per check, each with one value `PROBE`; the folder is the registry. Pure: views in, findings out. It may import judge."""
