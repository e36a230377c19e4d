-- The W3C traceparent of the call that wrote the event, if its trace is sampled: so that the stream which shows the event
-- can be found from the order's trace, and the other way round. The release before this one writes events without it.
ALTER TABLE order_event ADD COLUMN traceparent text;
