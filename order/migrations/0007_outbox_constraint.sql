-- A name for the constraint that PostgreSQL has named.
ALTER TABLE outbox RENAME CONSTRAINT outbox_action_check TO outbox_action;
