"""From what is known of an incident to what caused it: signs, weights, a diagnosis. Pure; may import checks, kernel_log and model."""
