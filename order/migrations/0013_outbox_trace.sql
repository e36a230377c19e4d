-- The same for messages: sending one is a trace of its own, with a link to the trace of the call that wrote it.
ALTER TABLE outbox ADD COLUMN traceparent text;
