"""The sidecar in the edge's pod: order status as server-sent events, and reflection and health for the whole edge."""
