"""The incidents of a live node: opened, followed, diagnosed, remembered. Pure; may import evidence and what stands below it."""
