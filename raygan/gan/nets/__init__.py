"""Networks: layers, norms, architectures."""
