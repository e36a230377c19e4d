"""A product as the domain has it."""

from datetime import UTC, datetime
from uuid import UUID

from product.domain import Product

ID = UUID("123e4567-e89b-42d3-a456-426614174000")
NOW = datetime(2026, 11, 23, 2, 3, 4, 567891, UTC)
PRODUCT = Product(
    id=ID,
    name="Steel watch",
    slug="steel-watch",
    sku="STE-WAT",
    variant="",
    description="",
    category="",
    currency="EUR",
    price_micros=12_500_000,
    stock=10,
    star=4.5,
    image_uri="",
    version=7,
    create_time=NOW,
    update_time=NOW,
    delete_time=None,
)
