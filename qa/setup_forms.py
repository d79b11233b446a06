"""What people fill in on the way through a set-up: fields and their words. The rules behind are setup.py's and the services'."""

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any

from django import forms

from audiences.models import Audience, User
from audiences.segments.recipes import EVENT_WORDS, Recipe, guess
from audiences.services.audiences import KEY
from destinations.connectors import registry
from destinations.forms import CADENCES
from destinations.models import Destination
from destinations.models import Mapping as Connection
from qa import pairs

JSON, BUILD = "json", "build"  # instead of a recipe: pasted, or built rule by rule
LONGEST_RULE = 200_000  # characters that a pasted rule may have
_NEW = "new:"  # before a platform's kind: an account there that is still to be connected


class PlaceForm(forms.Form):
    """Step 1: what for, and where."""

    purpose = forms.ChoiceField(
        choices=Audience.Purpose.choices,
        widget=forms.RadioSelect,
        error_messages={"required": "Choose what it is for.", "invalid_choice": "Choose what it is for."},
    )
    target = forms.CharField(
        max_length=120, error_messages={"required": "Choose where it goes, or a platform to be connected later."}
    )

    def clean_target(self) -> str:
        target: str = self.cleaned_data["target"]
        kind = target.removeprefix(_NEW)
        if target.startswith(_NEW) and kind in registry.CONNECTORS:
            self.kind, self.destination = kind, None
        else:
            self.destination = Destination.objects.filter(key=target).first()
            if self.destination is None:
                raise forms.ValidationError("That destination is no longer there.")
            self.kind = ""
        return target

    kind: str = ""
    destination: Destination | None = None


class IdentifiersForm(forms.Form):
    """Step 2."""

    identifiers = forms.MultipleChoiceField(widget=forms.CheckboxSelectMultiple)

    def __init__(self, *args: Any, kinds: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["identifiers"]
        assert isinstance(field, forms.MultipleChoiceField)
        field.choices = list(kinds.items())
        field.error_messages["required"] = "Choose at least one."


class RecipeForm(forms.Form):
    """Step 3: the numbers of a recipe, and this workspace's names for its events."""

    def __init__(
        self,
        *args: Any,
        recipe: Recipe,
        events: Collection[str],
        properties: Mapping[str, Collection[str]],
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.recipe = recipe
        for number in recipe.numbers:
            self.fields[f"n_{number.name}"] = forms.IntegerField(
                label=number.label,
                min_value=number.low,
                max_value=number.high,
                initial=number.usual,
                help_text=number.unit,
                widget=forms.NumberInput(attrs={"class": "number", "inputmode": "numeric"}),
            )
        guessed = guess(recipe, events, properties)
        for slot in recipe.slots:
            names = sorted(events)
            if slot == "amount":
                names = sorted(properties.get(self._chosen("purchase", guessed), ()))
            self.fields[f"e_{slot}"] = forms.ChoiceField(
                label=EVENT_WORDS[slot],
                choices=[*([] if guessed[slot] else [("", "Choose one")]), *((name, name) for name in names)],
                initial=guessed[slot],
                error_messages={"required": "Choose one.", "invalid_choice": "Nobody has been seen doing that."},
            )

    def _chosen(self, slot: str, guessed: Mapping[str, str]) -> str:
        return str(self.data.get(f"e_{slot}") or guessed.get(slot, ""))

    def numbers(self) -> list[forms.BoundField]:
        return [self[name] for name in self.fields if name.startswith("n_")]

    def names(self) -> list[forms.BoundField]:
        return [self[name] for name in self.fields if name.startswith("e_")]

    @property
    def guessed_all(self) -> bool:
        return all(field.initial for name, field in self.fields.items() if name.startswith("e_"))

    def values(self) -> tuple[dict[str, int], dict[str, str]] | None:
        """(numbers, names) as they stand, of an untouched form the usual ones; None where something is wrong or still to be chosen."""
        if self.is_bound:
            return self._chosen_values() if self.is_valid() else None
        if not self.guessed_all:
            return None
        return {}, {name[2:]: str(field.initial) for name, field in self.fields.items() if name.startswith("e_")}

    def _chosen_values(self) -> tuple[dict[str, int], dict[str, str]]:
        values = self.cleaned_data.items()
        return (
            {name[2:]: value for name, value in values if name.startswith("n_")},
            {name[2:]: value for name, value in values if name.startswith("e_")},
        )


class TextForm(forms.Form):
    """Step 3: a rule as JSON."""

    rule = forms.CharField(
        label="Rule as JSON",
        max_length=LONGEST_RULE,
        widget=forms.Textarea(attrs={"rows": 12, "class": "mono", "spellcheck": "false", "autocomplete": "off"}),
        help_text="As a file for apply holds it under “segment”.",
    )


class NameForm(forms.Form):
    """Step 3: what the new audience is called."""

    key = forms.RegexField(
        KEY,
        max_length=100,
        label="Key",
        help_text="Letters, digits, _ and -. It never changes and is never reused; files and commands use it.",
        widget=forms.TextInput(attrs={"class": "mono", "autocomplete": "off", "spellcheck": "false"}),
        error_messages={"invalid": "Letters, digits, _ and -, beginning with a letter or digit."},
    )
    description = forms.CharField(
        label="In a sentence", required=False, max_length=500, widget=forms.TextInput(attrs={"autocomplete": "off"}),
        help_text="For the media buyer who looks for it.",
    )  # fmt: skip

    def __init__(self, *args: Any, named: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if named:  # the name is built above, and gives the key
            self.fields["key"].required = False
            self.fields["key"].help_text = f"Left empty: its name without the version. {self.fields['key'].help_text}"

    def clean_key(self) -> str:
        key: str = self.cleaned_data["key"]
        if key.lower() == "new":
            raise forms.ValidationError("“new” is a page's address, so no audience is called that.")
        if key and Audience.objects.filter(key=key).exists():
            raise forms.ValidationError("It is taken, perhaps by an archived audience; keys are never reused.")
        return key


class BehaviourForm(forms.Form):
    """Step 5."""

    cadence_seconds = forms.TypedChoiceField(label="Sync", coerce=int, choices=CADENCES, initial=900)
    removal_limit_percent = forms.IntegerField(
        label="Ask before removing more than, in %",
        min_value=1,
        max_value=100,
        initial=50,
        help_text="A run that would remove a larger share of those who are there waits for a named approval.",
    )
    weekly_spend = forms.DecimalField(
        label="Spend a week",
        required=False,
        min_value=0,
        max_digits=12,
        decimal_places=2,
        help_text="What is spent on these people now, to measure against later. Left empty: not known.",
    )

    def __init__(self, *args: Any, currency: str, mapping: Connection | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["weekly_spend"].label = f"Spend a week, in {currency}"
        field = self.fields["cadence_seconds"]
        assert isinstance(field, forms.TypedChoiceField)
        now = mapping.cadence_seconds if mapping else 900
        if now not in dict(CADENCES):
            field.choices = [*CADENCES, (now, f"Every {timedelta(seconds=now)}")]


class OwnersForm(forms.Form):
    """Step 7. One person may hold several of them."""

    definition_owner = forms.ModelChoiceField(
        User.objects.none(), label="Definition", help_text="Answers for the rule: who is in, and why."
    )
    sync_owner = forms.ModelChoiceField(
        User.objects.none(), label="Match rate", help_text="Watches how many the platform takes and recognises."
    )
    alert_owner = forms.ModelChoiceField(
        User.objects.none(), label="Alerts", help_text="Is mailed when something drops, swings or fails."
    )
    backup_owner = forms.ModelChoiceField(
        User.objects.none(), label="Backup", required=False, help_text="Stands in for them.", empty_label="Nobody"
    )

    def __init__(self, *args: Any, audience: Audience, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        people = User.objects.filter(is_active=True).order_by("name", "email")
        for name, field in self.fields.items():
            assert isinstance(field, forms.ModelChoiceField)
            field.queryset = people
            field.initial = getattr(audience, f"{name}_id")


class PairingForm(forms.Form):
    """The suppression pair beside a template: one that is there already, a new one, or none for now."""

    pair = forms.ChoiceField(
        widget=forms.RadioSelect, required=False, error_messages={"invalid_choice": "That pair is no longer offered."}
    )
    days = forms.IntegerField(
        required=False,
        min_value=pairs.DAYS[0],
        max_value=pairs.DAYS[-1],
        initial=pairs.USUAL,
        label="Days",
        widget=forms.NumberInput(attrs={"class": "number"}),
    )

    def __init__(self, *args: Any, event: str, alike: Sequence[pairs.Alike], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["pair"]
        assert isinstance(field, forms.ChoiceField)
        links = [(f"link:{one.audience.key}", one.audience.key) for one in alike]
        field.choices = [*links, *([("make", "make")] if event else []), ("later", "later")]
        self.initial.setdefault("pair", field.choices[0][0])

    @property
    def chosen_key(self) -> str:
        """The audience that is chosen to be linked, if one is."""
        return str(self["pair"].value() or "").partition("link:")[2]

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        if values.get("pair") == "make" and "days" in values and values["days"] is None:
            self.add_error("days", f"Say how many days, from {pairs.DAYS[0]} to {pairs.DAYS[-1]}.")
        return values


class PairForm(forms.Form):
    days = forms.IntegerField(
        label="Bought in the last",
        min_value=pairs.DAYS[0],
        max_value=pairs.DAYS[-1],
        initial=pairs.USUAL,
        help_text="days, from 7 to 30",
        widget=forms.NumberInput(attrs={"class": "number"}),
    )
    event = forms.ChoiceField(label="Event of a purchase", error_messages={"required": "Choose one."})

    def __init__(self, *args: Any, events: Sequence[str], usual: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["event"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = [*([] if usual else [("", "Choose one")]), *((name, name) for name in events)]
        field.initial = usual
