"""Each index costs every write, so each has a reader."""

import psycopg
import pytest

READERS = {
    "product": {
        "database_identity_pkey": "uniqueness",
        "product_category_idx": "ListProducts by category, ListCategories",
        "product_category_name_idx": "ListProducts by category and name",
        "product_category_price_idx": "ListProducts by category and price",
        "product_category_star_idx": "ListProducts by category and star",
        "product_create_time_idx": "ListProducts by create_time",
        "product_name_idx": "ListProducts by name",
        "product_pkey": "GetProduct and all that changes a product",
        "product_price_idx": "ListProducts by price",
        "product_search_idx": "ListProducts with a search",
        "product_sku_key": "uniqueness",
        "product_slug_key": "uniqueness",
        "product_star_idx": "ListProducts by star",
        "reservation_expired_idx": "ListExpiredReservations, the overdue-hold reader",
        "reservation_pkey": "all that changes a reservation, ListReservations",
        "schema_migration_pkey": "uniqueness",
        "stock_adjustment_pkey": "AdjustStock",
    },
    "order": {
        "cart_add_create_time": "the purger",
        "cart_add_pkey": "AddCartItem with a request_id",
        "cart_expire_time": "the purger, the backlog reader",
        "cart_owner": "GetMyCart, uniqueness",
        "cart_pkey": "GetCart and all that changes a cart",
        "database_identity_pkey": "uniqueness",
        "order_event_final": "the pruner",
        "order_event_pkey": "the log of an order",
        "order_event_xid": "the tailer",
        "orders_by_cart": "reconcile",
        "orders_by_email": "ListOrders by customer_email",
        "orders_by_owner": "ListOrders of a customer",
        "orders_by_status": "ListOrders by status",
        "orders_newest": "ListOrders",
        "orders_number_key": "ListOrders by number, uniqueness",
        "orders_pkey": "GetOrder and all that changes an order",
        "outbox_due": "the relay",
        "outbox_pkey": "the relay, the backlog reader",
        "schema_migration_pkey": "uniqueness",
    },
}


@pytest.mark.parametrize("service", list(READERS))
def test_every_index_has_a_reader(service: str, request: pytest.FixtureRequest) -> None:
    with psycopg.connect(request.getfixturevalue(f"{service}_database")) as connection:
        rows = connection.execute("SELECT indexname FROM pg_indexes WHERE schemaname = 'public'").fetchall()
    assert {row[0] for row in rows} == set(READERS[service])
