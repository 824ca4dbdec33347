"""Options priced under the same draws and ranked, break-evens, influences, curves. May import `lines` and `model`."""
