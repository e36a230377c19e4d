"""Commands that run beside Envoy: its drain and its warm-up."""
