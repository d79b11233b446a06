"""Lists of privacy requests: a file with an identifier a row, each row a request of its own. Reading and going on are imports.py's."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.db import transaction
from django.utils.dateparse import parse_datetime

from audiences import faults
from audiences.clock import now_us
from audiences.models import ImportFile, User
from audiences.people import imports, normalise, privacy, refused
from audiences.people.imports import Batch, ImportRefused, Reader
from audiences.people.keys import Key
from audiences.people.tabular import Row

AT_ONCE = 20  # rows in a write transaction: each may take somebody off every list

_NAMES = {
    "id": ("id", "customer_id", "customerid", "user_id", "userid", "external_id"),
    "email": ("email", "e-mail", "email_address", "mail"),
    "phone": ("phone", "phone_number", "mobile", "msisdn", "tel", "telephone"),
    "identifier": ("identifier",),
}


def columns_of(names: Sequence[str]) -> dict[str, str]:
    """Our field → the column, by the columns' names. Raises ImportRefused where none holds an identifier."""
    by_name = {name.strip().casefold().replace(" ", "_"): name for name in reversed(names)}
    found = {
        field: by_name[known] for field, others in _NAMES.items() for known in reversed(others) if known in by_name
    }
    if not found:
        raise ImportRefused("No column is called id, email, phone or identifier: name one so in the first row.")
    return found


def start(
    path: Path,
    *,
    actor: User | None,
    kind: str,
    source: str,
    name: str = "",
    reference: str = "",
    asked_at: str = "",
    in_background: bool = True,
) -> ImportFile:
    """Have a file's rows asked, one request each. `asked_at`: ISO 8601, when the people asked. Raises ImportRefused."""
    request = {"kind": kind, "source": source, "reference": reference[:100], "asked_at": asked_at}
    columns = columns_of(imports.inspect(path, 0).names)
    return imports.start(
        path, ImportFile.Kind.PRIVACY, columns, name=name, actor=actor, in_background=in_background, request=request
    )


class _Requests(Reader):
    """Whoever is named by several columns of a row is asked for by all of them."""

    chunk_size = AT_ONCE

    def full(self) -> bool:
        return False  # each chunk is its own checkpoint

    def take_in(self, rows: list[Row]) -> None:
        began = time.monotonic()
        asked: dict[str, Any] = self.row.mapping["request"]
        with transaction.atomic():
            self.claim.guard()
            for row in rows:
                self._ask(row, asked)
            refused.keep(self.batch.refused, self.region)
            self.row.rows_read += self.batch.read
            self.row.rows_accepted += self.batch.accepted
            self.row.rows_refused += self.batch.read - self.batch.accepted
            self.row.save(update_fields=["rows_read", "rows_accepted", "rows_refused"])
            faults.point("privacy_list.before_commit")
        faults.point("privacy_list.committed")
        self.batch = Batch()
        time.sleep(min(time.monotonic() - began, 1.0))

    def _ask(self, row: Row, asked: dict[str, Any]) -> None:
        said: list[Key] = []
        for field, column in self.columns.items():
            value = row.values[self.position[column]]
            if (text := value.strip() if isinstance(value, str) else "" if value is None else str(value)) == "":
                continue
            key = self._key(field, text)
            if not key:
                self.refuse_row(row, field, _WRONG[field])
                return
            said += key
        if not said:
            self.refuse_row(row, "", "no identifier in this row")
            return
        try:
            privacy.ask(
                said,
                kind=asked["kind"],
                source=asked["source"],
                at_us=now_us(),
                actor=self.row.created_by,
                asked_at=parse_datetime(asked["asked_at"]) if asked["asked_at"] else None,
                reference=asked["reference"],
                import_file=self.row,
            )
        except privacy.NotAsked as error:
            self.refuse_row(row, "", str(error))
        else:
            self.batch.accepted += 1

    def _key(self, field: str, text: str) -> list[Key]:
        match field:
            case "email":
                address = normalise.email(text)
                return [("email", address)] if address else []
            case "phone":
                number = normalise.phone(text, self.region)
                return [("phone", number)] if number else []
            case "id":
                return [("id", text)] if len(text.encode()) <= 150 else []
        return privacy.meant(privacy.keys_of(text, self.region))


_WRONG = {
    "email": "not an e-mail address",
    "phone": "not a phone number",
    "id": "longer than 150 bytes",
    "identifier": "neither an id, nor an e-mail address, nor a phone number",
}

imports.READERS[ImportFile.Kind.PRIVACY] = _Requests
