"""Carts: what somebody may order. They are in the order service's database, beside the orders that they become."""
