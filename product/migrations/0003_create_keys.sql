-- A product that is created under an idempotency key has its id from the key. SHA-256 of what it was created with tells a
-- retry from another product under the same key; empty where an older program created it.
ALTER TABLE product ADD COLUMN fingerprint bytea NOT NULL DEFAULT '';
