"""The page with the live numbers of a shop on this machine: `make up TELEMETRY=1` serves it at /debug."""
