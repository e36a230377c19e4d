-- migrate: no transaction
-- The orders of a customer, newest first. What is nobody's is not in it, so it costs nothing in a shop without tokens.
CREATE INDEX CONCURRENTLY IF NOT EXISTS orders_by_owner ON orders (owner, create_time DESC, id DESC) WHERE owner <> '';
