-- Carts. The items are in the cart's own row: a change that waits for another one then goes on from what that one left.
CREATE TABLE cart (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    -- Whose cart it is: the subject of a token. Empty for a guest's, which has a secret instead.
    owner       text NOT NULL DEFAULT '',
    -- SHA-256 of the secret.
    secret_hash bytea,
    -- The version of the items. Random and no counter: after a restore, no etag of the lost time comes again, and so no id
    -- of an order that was made of it.
    etag        uuid NOT NULL DEFAULT gen_random_uuid(),
    -- [{product_id, quantity, name, currency, price_micros}], with the name and price of when it was put in.
    items       jsonb NOT NULL DEFAULT '[]' CONSTRAINT cart_items_array CHECK (jsonb_typeof(items) = 'array'),
    -- The cart that a merge has put the items into. Kept for a while, so that a repeated merge is told from a wrong one.
    merged_into uuid,
    create_time timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now(),
    expire_time timestamptz NOT NULL,
    CONSTRAINT cart_owner_or_secret CHECK ((owner = '') = (secret_hash IS NOT NULL))
-- Room for a new version of the row on its page, so that most changes write no index.
) WITH (fillfactor = 70);

-- A customer has one cart.
CREATE UNIQUE INDEX cart_owner ON cart (owner) WHERE owner <> '';
CREATE INDEX cart_expire_time ON cart (expire_time);

-- The requests that added to a cart, so that a retry adds nothing.
CREATE TABLE cart_add (
    cart_id     uuid NOT NULL,
    request_id  uuid NOT NULL,
    product_id  uuid NOT NULL,
    quantity    integer NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (cart_id, request_id)
);

CREATE INDEX cart_add_create_time ON cart_add (create_time);

-- The cart that an order was made of, if any.
ALTER TABLE orders ADD COLUMN cart_id uuid;
