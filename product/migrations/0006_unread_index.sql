-- migrate: no transaction
-- No statement reads the ledger by product: AdjustStock finds its row by request_id, and sums are over all of it. Products are
-- never removed, so the foreign key does not need it either. Each change of stock wrote into it.
DROP INDEX CONCURRENTLY IF EXISTS stock_adjustment_product_idx;
