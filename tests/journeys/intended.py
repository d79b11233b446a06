"""Prints, as JSON, whom each live connection of this installation intends to have on its platform: plain hashing over the identities' rows.

Run inside an installation by `manage.py shell`. Normalising and hashing are written out here once more, so that the product's own cannot agree with itself.
"""

import hashlib
import json

from audiences import bitmaps
from audiences.models import Identity
from destinations.models import Ledger


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


RECIPES = {
    ("meta", "email"): sha,
    ("meta", "phone"): lambda phone: sha(phone.lstrip("+").lstrip("0")),
    ("meta", "external_id"): str,
    ("google", "email"): sha,  # the sample has no addresses at gmail.com, which Google treats in its own way
    ("google", "phone"): sha,
    ("openlist", "external_id"): str,
}

found = []
for ledger in Ledger.objects.filter(mapping__state="live").select_related("mapping__destination", "mapping__audience"):
    mapping = ledger.mapping
    wanted = bitmaps.unpack(ledger.base)
    values = set()
    for identity in Identity.objects.filter(identity_no__in=list(wanted)).iterator():
        for kind in mapping.identifiers:
            if plain := getattr(identity, kind):
                values.add((kind, RECIPES[mapping.destination.kind, kind](plain)))
    found.append(
        {
            "audience": mapping.audience.key,
            "platform": mapping.destination.kind,
            "destination": mapping.destination.key,
            "remote_id": mapping.remote_id,
            "people": len(wanted),
            "unsettled": len(bitmaps.unpack(ledger.unknown)),
            "present": bitmaps.unpack(ledger.present) == wanted,
            "identifiers": sorted(values),
        }
    )
print("INTENDED " + json.dumps(found))
