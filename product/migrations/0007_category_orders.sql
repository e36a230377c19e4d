-- migrate: no transaction
-- A category in each order of ListProducts, as product_category_idx has it newest first: without these, a page of a category
-- by price reads all prices until it has found enough of the category, or sorts all of the category. A change of stock
-- touches none of them.
CREATE INDEX CONCURRENTLY IF NOT EXISTS product_category_name_idx ON product (category, lower(name), id) WHERE delete_time IS NULL;

CREATE INDEX CONCURRENTLY IF NOT EXISTS product_category_price_idx ON product (category, price_micros, id) WHERE delete_time IS NULL;

CREATE INDEX CONCURRENTLY IF NOT EXISTS product_category_star_idx ON product (category, star, id) WHERE delete_time IS NULL;
