"""The rules of the catalogue: slugs and SKUs from names, fingerprints, and who may change a product."""

from dataclasses import dataclass, fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shop.product.v1 import product_pb2

from product import domain
from product.domain import WRITABLE, Content
from product.parse import SKU_PATTERN, SLUG_PATTERN
from product.store import COLUMN_PATHS
from runtime.refusals import DomainError, ErrorKind
from tests.support.example import ID, NOW, PRODUCT
from tests.support.requests import max_length


@pytest.mark.parametrize(
    ("name", "slug", "sku"),
    [
        ("Steel watch", "steel-watch", "STE-WAT"),
        ("  --Steel__watch!! ", "steel-watch", "STE-WAT"),
        ("Café Crème №5", "cafe-creme-no5", "CAF-CRE-NO5"),
        ("Straße nach Łódź, Ærø", "strasse-nach-lodz-aero", "STR-NAC-LOD-AER"),
        ("Часы", "product", "PRO"),
        ("Часы 41", "41", "41"),
        ("a b c d e", "a-b-c-d-e", "A-B-C-D"),
        ("x" * 200, "x" * 100, "XXX"),
    ],
)
def test_slug_and_sku_are_made_from_the_name(name: str, slug: str, sku: str) -> None:
    assert (domain.make_slug(name), domain.make_sku(name)) == (slug, sku)


@given(st.text(min_size=1, max_size=200))
def test_any_name_makes_valid_slugs_and_skus(name: str) -> None:
    content = Content(name=name).complete({"slug", "sku"})
    for _ in range(3):
        assert SLUG_PATTERN.fullmatch(content.slug)
        assert len(content.slug) <= domain.MAX_SLUG_LENGTH
        assert SKU_PATTERN.fullmatch(content.sku)
        assert len(content.sku) <= max_length(product_pb2.Product, "sku")
        content = content.with_alternative("slug", ID).with_alternative("sku", ID)


def test_alternative_slug_and_sku_get_longer_suffixes() -> None:
    content = Content(name="Steel watch").complete({"slug", "sku"})
    once = content.with_alternative("slug", ID)
    assert (once.slug, once.sku) == ("steel-watch-123e45", "STE-WAT")
    assert once.with_alternative("slug", ID).slug == "steel-watch-123e4567e89b"


def test_slug_of_the_client_has_no_alternative() -> None:
    content = Content(name="Steel watch", slug="mine").complete({"slug", "sku"})
    with pytest.raises(DomainError) as caught:
        content.with_alternative("slug", ID)
    assert caught.value.kind == ErrorKind.ALREADY_EXISTS
    assert content.with_alternative("sku", ID).slug == "mine"


CONTENT = Content(
    name="Steel watch",
    slug="steel-watch",
    sku="W-41",
    variant="black, 41 mm",
    description="Two lines,\nand 100 % steel.",
    category="Café",
    currency="EUR",
    price_micros=12_500_000,
    star=4.5,
    image_uri="/watch.png",
    generated=frozenset({"slug"}),
)


def test_fingerprint_is_that_of_release_0_1() -> None:
    """A request may be retried after an upgrade."""
    assert CONTENT.fingerprint(10).hex() == "db1bc1a1166d0ab84a683dff5b768e662b643aebe00c5609116b040e835dd217"
    small = Content(name="Steel watch", currency="EUR").complete({"slug", "sku"})
    assert small.fingerprint(0).hex() == "b18bfa2aa949793072c3e1d6d95bbdb51ef3f3d1384f34bad56de32716dc8ead"


def test_fingerprint_ignores_an_empty_new_field() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Later(Content):
        colour: str = ""

    later = Later(**{each.name: getattr(CONTENT, each.name) for each in fields(CONTENT)})
    assert later.fingerprint(10) == CONTENT.fingerprint(10)


def test_stock_above_the_limit_can_be_lowered() -> None:
    """Cancelled orders may have brought it there."""
    full = replace(PRODUCT, stock=domain.MAX_STOCK + 10)
    assert domain.check_adjustment(full, ID, -5, None) == full
    with pytest.raises(DomainError, match="cannot have more than 100,000,000"):
        domain.check_adjustment(full, ID, 1, None)


def test_repeated_conditional_delete_is_accepted() -> None:
    deleted = replace(PRODUCT, delete_time=NOW)
    assert domain.check_delete(deleted, ID, 6) == deleted
    for product, version in ((deleted, 5), (PRODUCT, 6)):
        with pytest.raises(DomainError) as caught:
            domain.check_delete(product, ID, version)
        assert caught.value.kind == ErrorKind.ABORTED


def test_update_writes_every_writable_field() -> None:
    """The paths of a mask are the fields of a product. A price is two columns."""
    assert set(COLUMN_PATHS.values()) == set(WRITABLE)
    assert set(COLUMN_PATHS) == {each.name for each in fields(Content)} - {"generated"}
