"""Dated, sourced facts: GPUs, models, prices, links, storage, power, failures. YAML files and the loader that doubts them."""
