from __future__ import annotations

import re
from itertools import islice

from service.ingress import HARMLESS, IDS_AT_ONCE, _new_ids


def test_ids_are_new_and_harmless_from_one_batch_to_the_next():
    ids = list(islice(_new_ids(), 3 * IDS_AT_ONCE))
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch("[0-9a-f]{32}", one) and HARMLESS.fullmatch(one.encode()) for one in ids)
