"""The search for words in products: how words become conditions that PostgreSQL can take from an index."""

import re
from collections.abc import Sequence
from typing import LiteralString

MAX_WORDS = 10
"""Different words of a search. Each of them is checked in every row that has the words before it."""

_TRIGRAM = re.compile(r"[^\W_]{3}")
"""What the trigram index needs of a word: three letters or digits in a row."""

_TEXT: LiteralString = r"lower(name || E'\n' || description || E'\n' || category || E'\n' || sku)"
"""What is searched: exactly the expression of product_search_idx."""

_PARAMETERS: tuple[LiteralString, ...] = ("w0", "w1", "w2", "w3", "w4", "w5", "w6", "w7", "w8", "w9")
assert len(_PARAMETERS) == MAX_WORDS


def split_words(search: str) -> list[str]:
    """Returns the different words of a search, the longest first: it leaves the fewest rows."""
    return sorted(dict.fromkeys(search.split()), key=len, reverse=True)


def conditions(search: str) -> tuple[Sequence[LiteralString], dict[str, str]]:
    """Returns the SQL conditions of a search, all of which must hold, and their parameters."""
    indexed, others = like_patterns(search)
    found: list[LiteralString] = []
    params: dict[str, str] = {}
    for name, pattern in zip(_PARAMETERS, indexed, strict=False):
        found.append(f"{_TEXT} LIKE lower(%({name})s COLLATE pg_c_utf8)")
        params[name] = pattern
    if others:
        # In this form PostgreSQL takes no index for them. It would read the index from end to end, and then every row.
        found.append(f"{_TEXT} LIKE ALL (string_to_array(lower(%(others)s COLLATE pg_c_utf8), ' '))")
        params["others"] = " ".join(others)
    return found, params


def like_patterns(search: str) -> tuple[list[str], list[str]]:
    """Returns the LIKE patterns of the words: those that the trigram index can find, and those that it cannot."""
    indexed: list[str] = []
    others: list[str] = []
    for word in split_words(search):
        pattern = "%" + re.sub(r"([\\%_])", r"\\\1", word) + "%"
        (indexed if _TRIGRAM.search(word) else others).append(pattern)
    return indexed, others
