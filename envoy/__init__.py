"""The one source of the edge's configuration."""
