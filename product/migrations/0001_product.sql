-- The catalogue. The collation pg_c_utf8 comes with PostgreSQL 17 and newer and knows all letters; it is the same on every
-- operating system, so that no index goes bad when one is upgraded, and it works where the database's own locale is C.

CREATE EXTENSION IF NOT EXISTS pg_trgm;

CREATE TABLE product (
    id uuid PRIMARY KEY,
    name text COLLATE pg_c_utf8 NOT NULL,
    slug text COLLATE pg_c_utf8 NOT NULL,
    sku text COLLATE pg_c_utf8 NOT NULL,
    variant text COLLATE pg_c_utf8 NOT NULL,
    description text COLLATE pg_c_utf8 NOT NULL,
    -- Empty: in no category.
    category text COLLATE pg_c_utf8 NOT NULL,
    -- ISO 4217.
    currency text COLLATE pg_c_utf8 NOT NULL,
    -- Millionths of a unit of the currency.
    price_micros bigint NOT NULL CONSTRAINT product_price_not_negative CHECK (price_micros >= 0),
    -- Pieces that can still be ordered: neither held nor sold. CreateProduct and AdjustStock keep to a limit of
    -- 100,000,000; it is no constraint, because what a reservation gives back must never be refused.
    stock bigint NOT NULL CONSTRAINT product_stock_not_negative CHECK (stock >= 0),
    star double precision NOT NULL CONSTRAINT product_star_range CHECK (star BETWEEN 0 AND 5),
    image_uri text COLLATE pg_c_utf8 NOT NULL,
    -- The etag: counts the changes of everything but the stock.
    revision bigint NOT NULL DEFAULT 1,
    create_time timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now(),
    -- Set by DeleteProduct, cleared by UndeleteProduct. Rows stay: orders may refer to them.
    delete_time timestamptz
) WITH (fillfactor = 80);  -- Room beside each row: a change of stock then touches no index.

-- Unique among live products only: a deleted one gives its names free.
CREATE UNIQUE INDEX product_sku_key ON product (sku) WHERE delete_time IS NULL;
CREATE UNIQUE INDEX product_slug_key ON product (slug) WHERE delete_time IS NULL;

-- One for each order of ListProducts; read backwards where it is descending. The id breaks ties.
CREATE INDEX product_create_time_idx ON product (create_time, id) WHERE delete_time IS NULL;
CREATE INDEX product_name_idx ON product (lower(name), id) WHERE delete_time IS NULL;
CREATE INDEX product_price_idx ON product (price_micros, id) WHERE delete_time IS NULL;
CREATE INDEX product_star_idx ON product (star, id) WHERE delete_time IS NULL;
CREATE INDEX product_category_idx ON product (category, create_time, id) WHERE delete_time IS NULL;

-- Search is for substrings of any of these; the line break keeps a word from matching across two of them. Not partial:
-- PostgreSQL uses the statistics of an expression only from an index of all rows, and without them it reads every match of
-- a common word before it sorts, where reading in order until a page is full would do.
CREATE INDEX product_search_idx ON product
    USING gin (lower(name || E'\n' || description || E'\n' || category || E'\n' || sku) gin_trgm_ops);
