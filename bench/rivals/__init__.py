"""What a team might write instead of the shop: one process on one database, small and fair, with no proxy before it."""
