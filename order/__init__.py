"""The order service: takes orders, keeps their event logs, and tells watchers what happens."""
