"""The words everyone shares: units, clock, errors, ids, events. Imports no other room and no I/O."""
