-- Upper and lower case alike for all letters, whatever the database's own locale: pg_c_utf8 comes with PostgreSQL 17.
DROP INDEX orders_by_email;
CREATE INDEX orders_by_email ON orders (lower(customer_email COLLATE pg_c_utf8), create_time DESC, id DESC)
    WHERE status <> 'EXPIRED';
