"""Who there is, what they do and who is therefore wanted. Each act writes the rows that intake writes (test_stand_in.py compares).

Numbers are small: profile 1 has identities 1, 11, 21, … so that a trace reads easily.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from django.db import transaction

from audiences.models import Alias, Consent, Identity, Profile
from audiences.people import merges
from audiences.people.presently import LATELY
from audiences.people.profiles import log_changes
from tests.simulation.clockwork import Clockwork

RETARGETING, SUPPRESSION = "retargeting", "suppression"
KINDS = ("external_id", "email", "phone")
USES = ("ad_user_data", "ad_personalization")  # that a person consents to, or not

Value = tuple[str, str]  # kind and what the platform compares


@dataclass(slots=True)
class Person:
    """`carries`: identity_no → kind → identifier, all that there ever were; `identity`: the one in force, None when gone."""

    no: int
    identity: int | None
    carries: dict[int, dict[str, str]]
    inside: bool  # by the attribute that the rule asks for
    fits: bool = True  # the second version of the rule as well
    bought: bool = False
    bought_us: int = 0
    consents: bool = True
    said: int | None = None  # about consent, at which step
    live: bool = True
    missed: bool = False  # the count in force does not have them, for whatever reason
    became: int = 0  # merged into this profile
    entered: int = 0  # the step at which they last did something that may bring them in
    vetoing: bool = False  # left by purchase, consent or erasure, and has not come back


@dataclass(slots=True)
class People:
    """The truth. `kind`: the platform's, for its recipes."""

    clock: Clockwork
    purpose: str
    kind: str
    persons: dict[int, Person] = field(default_factory=dict)
    owner: dict[int, Person] = field(default_factory=dict)  # by identity_no
    version: int = 1  # of the rule that is live
    fresh: int = 0

    # --- Who is wanted

    def members(self) -> set[int]:
        """Whom the live rule finds, before it is asked who may be sent."""
        return {person.no for person in self.persons.values() if person.no and self.found(person)}

    def wanted(self, person: Person) -> bool:
        return person.live and person.consents and person.identity is not None and self.found(person)

    def told_out(self, person: Person) -> bool:
        """Whether whoever reads the change log, and the count in force, knows that they are out."""
        bought = person.bought if self.purpose != SUPPRESSION else not person.bought
        return not person.live or not person.consents or bought or person.missed

    def vetoes(self, person: Person) -> bool:
        """Whether they left by purchase, consent or erasure; so has whoever turned out to be somebody who did."""
        return person.vetoing or (person.became in self.persons and self.persons[person.became].vetoing)

    def found_before(self, person: Person, since_us: int) -> bool:
        """As if what came in since then had not."""
        bought = person.bought and person.bought_us < since_us - LATELY
        return person.live and self._rule(person, bought)

    def found(self, person: Person) -> bool:
        """Whether the live rule takes them in."""
        if not person.live:
            return False
        return self._rule(person, person.bought)

    def _rule(self, person: Person, bought: bool) -> bool:
        if self.purpose == SUPPRESSION:
            return bought
        return person.inside and not bought and (self.version == 1 or person.fits)

    # --- What a platform compares

    def values(self, identity: int, kinds: Iterable[str] = KINDS) -> set[Value]:
        """What this identity is there, of the kinds that the platform takes."""
        found = set()
        for kind in kinds:
            text = self.owner[identity].carries[identity].get(kind)
            if text and (value := _there(self.kind, kind, text)):
                found.add((kind, value))
        return found

    def current(self, person: Person, kinds: Iterable[str] = KINDS) -> set[Value]:
        return set() if person.identity is None else self.values(person.identity, kinds)

    def carriers(self, value: Value) -> list[int]:
        """Every identity, in force or not, that is this on the platform."""
        return [number for number in self.owner if value in self.values(number)]

    # --- Acts. Each is one transaction; what it changes in the truth it changes at once.

    def begin(self, count: int, sharing: bool) -> None:
        """Write down the first people."""
        rng = self.clock.rng
        for no in range(1, count + 1):
            carries = {"external_id": f"id-{no}", "email": f"p{no}@x.test", "phone": f"+1202555{no:04d}"}
            if sharing and no > 1 and rng.random() < 0.3:
                carries["email"] = f"p{rng.randrange(1, no)}@x.test"
            person = Person(no, no, {no: carries}, inside=rng.random() < 0.8, fits=rng.random() < 0.6)
            person.bought = rng.random() < (0.5 if self.purpose == SUPPRESSION else 0.1)
            self.persons[no] = self.owner[no] = person
        self._insert(list(self.persons.values()))

    def purchase(self, person: Person) -> None:
        self._log([(person.no, "event", "purchase")])
        person.bought, person.bought_us = True, self._us()
        self._entered(person)
        if self.purpose != SUPPRESSION:
            person.vetoing = True

    def cart(self, person: Person) -> None:
        """Something that makes whoever bought a candidate again."""
        self._log([(person.no, "event", "add_to_cart")])
        person.bought, person.inside = False, True
        person.vetoing = not person.consents
        self._entered(person)

    def _entered(self, person: Person) -> None:
        """They did something that may bring them in, before any count knows of it."""
        person.missed, person.entered = False, self.clock.step

    def attribute(self, person: Person) -> None:
        """Nobody hears of it before the next count."""
        person.inside = not person.inside

    def renew(self, person: Person, **carries: str) -> None:
        """Other identifiers: the old identity is replaced."""
        assert person.identity is not None
        old, number = person.carries[person.identity], max(self.owner) // 10 * 10 + 10 + person.no
        self._replace(person.no)
        person.carries[number], person.identity = {**old, **carries}, number
        self._identity(person).save(force_insert=True)
        Profile.objects.filter(pk=person.no).update(identity_no=number)
        self._log([(person.no, "identity", "")])
        self.owner[number] = person

    def consent(self, person: Person, granted: bool) -> None:
        for purpose in USES:
            said = {"granted": granted, "at_us": self._us(), "source": "track_v1"}
            Consent.objects.update_or_create(profile_no=person.no, purpose=purpose, defaults=said)
        self._log([(person.no, "consent", purpose) for purpose in USES])
        person.consents, person.said = granted, self.clock.step
        person.vetoing = not granted or (person.bought and self.purpose != SUPPRESSION)

    def leave(self, person: Person, *, erased: bool) -> None:
        """Deleted, or erased on request."""
        self._state(person, "erased" if erased else "deleted")
        self._log([(person.no, "erasure" if erased else "delete", "")])
        person.vetoing = True

    def merge(self, survivor: Person, old: Person) -> None:
        """The old one's events and the newer word on consent are the survivor's, who lacks nothing else here."""
        with transaction.atomic():
            self._state(old, "merged")
            Alias.objects.create(old_no=old.no, survivor_no=survivor.no)
            Alias.objects.filter(survivor_no=old.no).update(survivor_no=survivor.no)
            for person in self.persons.values():
                if person is old or person.became == old.no:
                    person.became = survivor.no
            self._log([(old.no, "merge", str(survivor.no))])
            if old.said is not None and (survivor.said is None or old.said > survivor.said):
                self.consent(survivor, old.consents)
                survivor.said = old.said
            merges._replace_in_bitmaps(old.no, survivor.no)
            if old.bought:
                survivor.bought_us = max(survivor.bought_us, old.bought_us)
                survivor.bought = True
                self._entered(survivor)
            survivor.vetoing = survivor.vetoing or (survivor.bought and self.purpose != SUPPRESSION)

    def arrive(self) -> Person:
        """Somebody new."""
        no = max(self.persons) + 1
        person = Person(
            no,
            no,
            {no: {"external_id": f"id-{no}", "email": f"p{no}@x.test", "phone": f"+1202555{no:04d}"}},
            inside=True,
        )
        person.bought = self.purpose == SUPPRESSION
        self._insert([person])
        self.persons[no] = self.owner[no] = person
        return person

    # --- Rows

    def _state(self, person: Person, state: str) -> None:
        Profile.objects.filter(pk=person.no).update(state=state, attributes="{}")
        self._replace(person.no)
        Consent.objects.filter(profile_no=person.no).delete()
        person.live, person.identity = False, None

    def _replace(self, no: int) -> None:
        Identity.objects.filter(profile_no=no, replaced_at__isnull=True).update(replaced_at=self.clock.now())

    def _insert(self, people: list[Person]) -> None:
        Profile.objects.bulk_create(
            Profile(profile_no=one.no, bucket_key=f"id-{one.no}", created_us=self._us(), identity_no=one.identity)
            for one in people
        )
        Identity.objects.bulk_create(self._identity(one) for one in people)

    def _identity(self, person: Person) -> Identity:
        number = person.identity or 0
        return Identity(identity_no=number, profile_no=person.no, **person.carries[number])

    def _log(self, lines: list[tuple[int, str, str]]) -> None:
        log_changes(lines, self._us())

    def _us(self) -> int:
        return int(self.clock.epoch() * 1_000_000)


def _there(platform: str, kind: str, text: str) -> str:
    """What the platform compares, by its published recipe, written here once more."""
    if kind == "external_id":
        return text if platform in ("meta", "openlist") else ""
    if kind == "phone":
        if platform == "openlist":
            return ""
        text = text if platform == "google" else text.removeprefix("+")
    return hashlib.sha256(text.encode()).hexdigest()
