"""Background jobs of the order service, and its command `reconcile`."""
