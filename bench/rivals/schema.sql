-- The database of the rivals: one for products and orders, as most shops begin. Columns and rows are those of the shop, and
-- so are the indexes, of those that a rival has a use for.
CREATE EXTENSION IF NOT EXISTS pg_trgm;

CREATE TABLE product (
    id uuid PRIMARY KEY,
    name text COLLATE pg_c_utf8 NOT NULL,
    slug text COLLATE pg_c_utf8 NOT NULL,
    sku text COLLATE pg_c_utf8 NOT NULL,
    variant text COLLATE pg_c_utf8 NOT NULL,
    description text COLLATE pg_c_utf8 NOT NULL,
    category text COLLATE pg_c_utf8 NOT NULL,
    currency text NOT NULL,
    price_micros bigint NOT NULL CHECK (price_micros >= 0),
    stock bigint NOT NULL CHECK (stock >= 0),
    star double precision NOT NULL,
    image_uri text COLLATE pg_c_utf8 NOT NULL,
    revision bigint NOT NULL DEFAULT 1,
    create_time timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 80);

CREATE UNIQUE INDEX product_sku_key ON product (sku);
CREATE INDEX product_create_time_idx ON product (create_time, id);
CREATE INDEX product_category_idx ON product (category, create_time, id);
CREATE INDEX product_search_idx ON product
    USING gin (lower(name || E'\n' || description || E'\n' || category || E'\n' || sku) gin_trgm_ops);

CREATE SEQUENCE order_number;

CREATE TABLE orders (
    id uuid PRIMARY KEY,
    -- The idempotency key, and a digest of what was asked for under it.
    key uuid NOT NULL UNIQUE,
    fingerprint bytea NOT NULL,
    number text NOT NULL UNIQUE,
    status text NOT NULL,
    items jsonb NOT NULL,
    currency text NOT NULL,
    total_micros numeric(30) NOT NULL,
    customer_name text NOT NULL,
    customer_email text NOT NULL,
    customer_phone text NOT NULL,
    shipping_address text NOT NULL,
    payment_method text NOT NULL,
    notes text NOT NULL DEFAULT '',
    version bigint NOT NULL DEFAULT 1,
    create_time timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX orders_newest ON orders (create_time DESC, id DESC);

CREATE TABLE order_event (
    order_id uuid NOT NULL REFERENCES orders (id),
    version bigint NOT NULL,
    status text NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (order_id, version)
);
