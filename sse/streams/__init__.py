"""Order statuses as server-sent events."""
