"""What is known about many pictures at once, the word that counts first.

Asking for each fact of each picture by itself takes minutes on a large set; this reads them in a few
statements.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.catalog import Catalog, Fact

CHUNK = 2_000  # contents asked for at a time


def counting_facts(
    catalog: Catalog, names: Sequence[str], media_ids: Sequence[int]
) -> Iterator[tuple[int, dict[str, Fact]]]:
    """For each content, once and in the order given: {name: the fact that counts}, as `Catalog.facts` orders.

    Args:
        names: which facts are wanted.
    """
    for media_id, found in all_facts(catalog, names, media_ids):
        yield media_id, {name: facts[0] for name, facts in found.items()}


def all_facts(
    catalog: Catalog, names: Sequence[str], media_ids: Sequence[int]
) -> Iterator[tuple[int, dict[str, list[Fact]]]]:
    """As `counting_facts`, with everything that was said under each name, the word that counts first."""
    wanted = list(dict.fromkeys(media_ids))
    sql = """SELECT media_id, name, value, source, by_hand, run_id FROM facts
             WHERE media_id IN (SELECT value FROM json_each(:ids))
             AND name IN (SELECT value FROM json_each(:names))
             ORDER BY by_hand DESC, run_id DESC, source"""
    for start in range(0, len(wanted), CHUNK):
        chunk = wanted[start : start + CHUNK]
        found: dict[int, dict[str, list[Fact]]] = {media_id: {} for media_id in chunk}
        parameters = {"ids": json.dumps(chunk), "names": json.dumps(list(names))}
        for media_id, name, value, source, by_hand, run_id in catalog.rows(sql, parameters):
            fact = Fact(name, _value(value), source, bool(by_hand), run_id)
            found[media_id].setdefault(name, []).append(fact)
        yield from found.items()


def _value(text: str) -> Any:
    return json.loads(text)
