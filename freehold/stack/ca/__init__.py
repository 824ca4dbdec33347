"""The small CA: certificates with which the nodes of a fleet prove who they are. It imports `stack/folders.py` and the rooms below stack."""
