"""Where decoupling pays on one device: engines against the best of backprop, and the limits."""
