"""What is seen of a process from outside: traces, metrics, and a line for each call."""
