-- migrate: no transaction
-- Texts are kept in Unicode's NFC from now on. Of an order, the address is what lists look for; the rest stays as its
-- customer sent it.
UPDATE orders SET customer_email = normalize(customer_email) WHERE customer_email IS NOT NFC NORMALIZED;
