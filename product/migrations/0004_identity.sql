-- Which database this is, and which order database it belongs to. A backup keeps both, so that a restored database is
-- known again and another one is not: `reconcile` would take its orders, or the want of them, for the truth.
CREATE TABLE database_identity (
    singleton boolean PRIMARY KEY DEFAULT true CONSTRAINT database_identity_one_row CHECK (singleton),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    -- The id of the order database: NULL until the order service first calls, then kept (PairDatabases).
    partner_id uuid
);

INSERT INTO database_identity DEFAULT VALUES;
