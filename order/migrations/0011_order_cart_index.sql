-- migrate: no transaction
-- The orders that were made of a cart, for `reconcile`.
CREATE INDEX CONCURRENTLY IF NOT EXISTS orders_by_cart ON orders (cart_id, create_time) WHERE cart_id IS NOT NULL;
