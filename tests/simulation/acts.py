"""What people do meanwhile: those in the audience, and those who run it. Each act is over at once and changes the truth with it."""

from collections.abc import Callable
from datetime import timedelta

from audiences import jobs
from audiences.models import Audience, Refresh
from destinations.models import Hold, Mapping, Run
from destinations.services import Refused, mappings, runs
from tests.simulation.clockwork import Clockwork
from tests.simulation.oracle import Oracle
from tests.simulation.people import SUPPRESSION, People, Person
from tests.simulation.weather import IDENTIFIERS, LONGEST_STEP, Weather


class Acts:
    """Draws the next act and does it. `count` makes a finished count; `command` starts a sync by hand in a process of its own."""

    def __init__(
        self,
        clock: Clockwork,
        weather: Weather,
        people: People,
        oracle: Oracle,
        mapping: Mapping,
        versions: tuple[int, ...],
        count: Callable[[str], Refresh],
        command: Callable[[], None],
    ) -> None:
        self.clock, self.rng, self.weather, self.people, self.oracle = clock, clock.rng, weather, people, oracle
        self.mapping, self.versions, self.count, self.command = mapping, versions, count, command
        self.choices: list[tuple[float, Callable[[], None]]] = [
            (4, self.purchase),
            (2, self.cart),
            (2, self.attribute),
            (2, self.new_email),
            (1, self.new_phone),
            (1, self.old_email),
            (1.5, self.consent),
            (0.8, self.delete),
            (0.5, self.erase),
            (0.8, self.merge),
            (0.8, self.arrive),
            (0.7, self.rule),
            (0.7, self.counted),
            (1.2, self.wish),
        ]
        if weather.sharing:
            self.choices.append((1.5, self.share))
        if weather.commands:
            self.choices.append((1.5, self.by_hand))
        if weather.controls:
            self.choices += [
                (0.6, self.pause),
                (0.6, self.freeze),
                (0.6, self.resync),
                (0.6, self.identifiers),
                (0.6, self.cancel),
                (0.6, self.hold),
                (0.6, self.unblock),
            ]

    def act(self) -> None:
        weights = [weight for weight, _ in self.choices]
        self.rng.choices([do for _, do in self.choices], weights)[0]()
        self.oracle.acted()
        self.oracle.dirty = True

    def step_clock(self) -> None:
        """NTP has its day."""
        before = self.clock.offset
        self.clock.offset = self.rng.uniform(-1, 1) * LONGEST_STEP
        self.clock.say(f"the clock steps by {self.clock.offset - before:+.1f} s")

    # --- People in it

    def _anybody(self) -> Person | None:
        live = [person for person in self.people.persons.values() if person.live]
        return self.rng.choice(live) if live else None

    def purchase(self) -> None:
        if (person := self._anybody()) is not None:
            self._say(person, "buys")
            if self.weather.purpose != SUPPRESSION:
                self.oracle.leaves_for_good(person)
            self.people.purchase(person)

    def cart(self) -> None:
        if (person := self._anybody()) is not None and self.weather.purpose != SUPPRESSION:
            self._say(person, "fills a cart")
            self.people.cart(person)
            self._perhaps_back(person)

    def attribute(self) -> None:
        if (person := self._anybody()) is not None:
            self._say(person, "gets another attribute, of which nobody hears before the next count")
            self.people.attribute(person)

    def new_email(self) -> None:
        if (person := self._anybody()) is not None:
            self.people.fresh += 1
            self._renewed(person, email=f"n{self.people.fresh}@x.test")

    def new_phone(self) -> None:
        if (person := self._anybody()) is not None:
            self.people.fresh += 1
            self._renewed(person, phone=f"+1203555{self.people.fresh:04d}")

    def old_email(self) -> None:
        """Back to the one before."""
        if (person := self._anybody()) is not None:
            now = person.carries[person.identity or 0]["email"]
            others = [carried["email"] for carried in person.carries.values() if carried["email"] != now]
            if others:
                self._renewed(person, email=self.rng.choice(others))

    def share(self) -> None:
        """The e-mail of somebody else."""
        one, other = self._anybody(), self._anybody()
        if one is not None and other is not None and one is not other:
            email = other.carries[other.identity or 0]["email"]
            if email != one.carries[one.identity or 0]["email"]:
                self._renewed(one, email=email)

    def _renewed(self, person: Person, **carries: str) -> None:
        self.people.renew(person, **carries)
        self._say(person, f"has other identifiers: {person.identity} ({', '.join(carries.values())})")

    def consent(self) -> None:
        if (person := self._anybody()) is not None:
            granted = not person.consents
            self._say(person, "consents" if granted else "withdraws consent")
            if not granted:
                self.oracle.leaves_for_good(person)
            self.people.consent(person, granted)
            self._perhaps_back(person)

    def delete(self) -> None:
        self._leave(erased=False)

    def erase(self) -> None:
        self._leave(erased=True)

    def _leave(self, *, erased: bool) -> None:
        if (person := self._anybody()) is not None:
            self._say(person, "is erased" if erased else "is deleted")
            self.oracle.leaves_for_good(person)
            self.people.leave(person, erased=erased)

    def merge(self) -> None:
        survivor, old = self._anybody(), self._anybody()
        if survivor is not None and old is not None and survivor is not old:
            self._say(old, f"turns out to be person {survivor.no}")
            self.people.merge(survivor, old)

    def arrive(self) -> None:
        if len(self.people.persons) < 9:
            self._say(self.people.arrive(), "arrives")

    def _perhaps_back(self, person: Person) -> None:
        if self.people.wanted(person):
            self.oracle.comes_back(person)

    # --- People who run it

    def rule(self) -> None:
        """The other version of the rule goes live, and is counted."""
        if self.weather.purpose == SUPPRESSION:
            return
        self.people.version = 3 - self.people.version
        self.clock.say(f"version {self.people.version} of the rule goes live")
        Audience.objects.filter(pk=self.mapping.audience_id).update(live_version=self.versions[self.people.version - 1])
        self.count(Refresh.Cause.PUBLISH)

    def counted(self) -> None:
        self.clock.say("the audience is counted")
        self.count(Refresh.Cause.SCHEDULE)

    def wish(self) -> None:
        self.clock.say("somebody asks for a sync")
        self._run()

    def by_hand(self) -> None:
        self.clock.say("somebody runs a sync by hand")
        self.command()

    def pause(self) -> None:
        row = self._mapping()
        if row.state == Mapping.State.PAUSED:
            self.clock.say("the connection goes on")
            mappings.resume(actor=None, mapping=row)
        elif row.state == Mapping.State.LIVE:
            self.clock.say("the connection is paused")
            mappings.pause(actor=None, mapping=row)

    def freeze(self) -> None:
        row = self._mapping()
        if row.state in (Mapping.State.LIVE, Mapping.State.PAUSED):
            self.clock.say("the connection is frozen for a while")
            until = self.clock.now() + timedelta(seconds=self.rng.uniform(20, 90))
            mappings.freeze(actor=None, mapping=row, reason="for a while", until=until)

    def resync(self) -> None:
        self.clock.say("everybody is to be told again")
        mappings.resync(actor=None, mapping=self._mapping())

    def identifiers(self) -> None:
        chosen = self.rng.choice(IDENTIFIERS[self.weather.kind])
        self.clock.say(f"the connection is to send {', '.join(chosen)}")
        mappings.change(actor=None, mapping=self._mapping(), identifiers=list(chosen))
        self.oracle.kinds = chosen

    def cancel(self) -> None:
        run = Run.objects.filter(mapping=self.mapping).order_by("-pk").first()
        if run is not None:
            try:
                runs.cancel(actor=None, run=run)
                self.clock.say(f"run {run.pk} is to stop")
            except Refused:
                pass

    def hold(self) -> None:
        lifted = Hold.objects.filter(mapping=self.mapping, lifted_at__isnull=True).update(lifted_at=self.clock.now())
        if not lifted:
            direction = self.rng.choice(Hold.Direction.values)
            self.clock.say(f"a hold: {direction}")
            Hold.objects.create(mapping=self.mapping, direction=direction, rule="person", reason="for a while")

    def unblock(self) -> None:
        mappings.unblock(actor=None, mapping=self._mapping())

    def _run(self) -> None:
        try:
            runs.request(actor=None, mapping=self._mapping())
        except Refused:
            jobs.ask(mappings.TASK, self.mapping.pk, queue="sync")

    def _mapping(self) -> Mapping:
        return Mapping.objects.select_related("audience", "destination").get(pk=self.mapping.pk)

    def _say(self, person: Person, what: str) -> None:
        self.clock.say(f"person {person.no} {what}")
