-- Names for the constraints that PostgreSQL has named. The release before this one refers to none of them.
ALTER TABLE orders RENAME CONSTRAINT orders_status_check TO orders_status;
ALTER TABLE orders RENAME CONSTRAINT orders_total_micros_check TO orders_total_not_negative;
