"""What several checks share: limits, windows of readings, results of rules; pure. It may import kernel_log, mesh and the model."""
