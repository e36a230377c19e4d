-- An order's log ends with a final status, so this finds the finished orders whose logs are still there, oldest first.
-- What was pruned leaves it.
CREATE INDEX order_event_final ON order_event (create_time) WHERE status IN ('RECEIVED', 'CANCELLED');
