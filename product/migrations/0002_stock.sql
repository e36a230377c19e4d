-- Where stock came from and where it went. For each product, at any time:
--   sum of its stock_adjustment.delta = product.stock + what HELD and CONFIRMED reservations have of it

-- What AdjustStock, and CreateProduct with a first stock, have added or taken away. Rows are never changed.
CREATE TABLE stock_adjustment (
    -- Made from caller and idempotency key, so that a retry meets its own row; the product's id for its first stock.
    request_id uuid PRIMARY KEY,
    product_id uuid NOT NULL REFERENCES product,
    delta bigint NOT NULL CONSTRAINT stock_adjustment_not_zero CHECK (delta <> 0),
    create_time timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX stock_adjustment_product_idx ON stock_adjustment (product_id, create_time);

-- Stock set aside for orders. Statements that touch both lock products first, in id order, and reservations after them.
CREATE TABLE reservation (
    -- The order's id.
    id uuid PRIMARY KEY,
    state text COLLATE pg_c_utf8 NOT NULL CONSTRAINT reservation_state CHECK (
        state IN (
            'HELD',       -- new → HELD by ReserveStock, which takes the stock
            'CONFIRMED',  -- HELD → CONFIRMED by ConfirmReservation
            'RELEASED'    -- HELD, CONFIRMED → RELEASED by ReleaseReservation, which gives the stock back;
        )                 -- new → RELEASED by ReleaseReservation of an unknown id. Final.
    ),
    -- [{product_id, quantity, name, currency, price_micros}] as they were when reserved; never changed. Empty where an
    -- unknown id was released.
    items jsonb NOT NULL,
    -- When the order service should look after a hold. Nothing happens by itself at that time.
    expire_time timestamptz NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX reservation_expired_idx ON reservation (expire_time, id) WHERE state = 'HELD';
