-- Which database this is, and which product database it belongs to. A backup keeps both, so that a restored database is
-- known again and another one is not: `reconcile` would take its reservations, or the want of them, for the truth.
CREATE TABLE database_identity (
    singleton boolean PRIMARY KEY DEFAULT true CONSTRAINT database_identity_one_row CHECK (singleton),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    -- The id of the product database: NULL until the product service first answers, then kept (order/identity.py).
    partner_id uuid
);

INSERT INTO database_identity DEFAULT VALUES;
