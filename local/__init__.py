"""The whole shop on one machine, without a cluster: embedded PostgreSQL, the services, the sidecar and Envoy."""
