-- Orders, their event logs, and the messages to the product service that follow from them.

-- An order's number: INV-<UTC date>-<sequence>. The sequence is never reset and takes no lock that lasts, so numbers
-- may be missing: a replayed or failed create uses one up.
CREATE SEQUENCE order_number;

CREATE FUNCTION next_order_number() RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT 'INV-' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD') || '-' || lpad(n, greatest(6, length(n)), '0')
    FROM (SELECT nextval('order_number')::text AS n) AS sequence
$$;

CREATE TABLE orders (
    -- Derived from the caller and the idempotency key; also the id of the reservation in the product service. Orders
    -- and tombstones share it, which is what decides between a late create and the reconciler.
    id               uuid PRIMARY KEY,
    number           text UNIQUE,
    status           text NOT NULL CHECK (status IN (
        'PLACED',     -- accepted, its stock set aside: CreateOrder
        'PROCESSED',  -- packed: ProcessOrder, from PLACED
        'DELIVERED',  -- left the house: DeliverOrder, from PROCESSED
        'RECEIVED',   -- the customer has it: ReceiveOrder, from DELIVERED; final
        'CANCELLED',  -- called off, stock given back: CancelOrder, from PLACED or PROCESSED; final
        'EXPIRED'     -- a tombstone: no order, and never one under this id; the reconciler, from nothing; final, hidden
    )),
    -- [{product_id, quantity, name, price_micros}], as they were when ordered.
    items            jsonb NOT NULL DEFAULT '[]',
    currency         text NOT NULL DEFAULT '',
    total_micros     numeric(30) NOT NULL DEFAULT 0 CHECK (total_micros >= 0),
    customer_name    text NOT NULL DEFAULT '',
    customer_email   text NOT NULL DEFAULT '',
    customer_phone   text NOT NULL DEFAULT '',
    shipping_address text NOT NULL DEFAULT '',
    payment_method   text NOT NULL DEFAULT '',
    notes            text NOT NULL DEFAULT '',
    -- SHA-256 of the request's payload: tells a retry from another order under the same key.
    fingerprint      bytea NOT NULL DEFAULT '',
    -- Who placed it, as the edge said; empty for everybody where nobody is told apart.
    caller           text NOT NULL DEFAULT '',
    -- The version of the newest event, and the etag.
    version          bigint NOT NULL DEFAULT 1,
    create_time      timestamptz NOT NULL DEFAULT now(),
    update_time      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT only_orders_have_numbers CHECK ((status = 'EXPIRED') = (number IS NULL))
);

CREATE INDEX orders_newest ON orders (create_time DESC, id DESC) WHERE status <> 'EXPIRED';
CREATE INDEX orders_by_status ON orders (status, create_time DESC, id DESC) WHERE status <> 'EXPIRED';
CREATE INDEX orders_by_email ON orders (lower(customer_email), create_time DESC, id DESC) WHERE status <> 'EXPIRED';

-- The event log: one row for each status that an order got, written by the statement that changed the status. Versions
-- count from 1 without a gap.
CREATE TABLE order_event (
    order_id    uuid NOT NULL REFERENCES orders (id) ON DELETE CASCADE,
    version     bigint NOT NULL,
    status      text NOT NULL,
    create_time timestamptz NOT NULL,
    -- The transaction that wrote it, by which tailers find what became visible since they last looked.
    xid         xid8 NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (order_id, version)
);

CREATE INDEX order_event_xid ON order_event (xid);

-- What the product service has still to be told. Written with the change that asks for it, deleted when it was told;
-- telling it twice does no harm.
CREATE TABLE outbox (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id uuid NOT NULL,
    action   text NOT NULL CHECK (action IN (
        'CONFIRM',  -- the order exists: its hold becomes lasting
        'RELEASE'   -- the order was cancelled: its stock is given back
    )),
    -- How often a relay has claimed it.
    attempts integer NOT NULL DEFAULT 0,
    -- When a relay may claim it: at once when new, else when the claim's lease or the wait after a failure is over.
    due_time timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX outbox_due ON outbox (due_time);

-- Rows live for a second here: vacuum by their number, not by the table's size.
ALTER TABLE outbox SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
