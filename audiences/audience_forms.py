"""What people fill in about one audience: its owners, its details, its test. Names are naming_forms.py's; rules that hold for commands too the services'."""

from typing import Any

from django import forms
from django.core.validators import MaxLengthValidator

from audiences import owners
from audiences.models import Audience, User
from audiences.templatetags.rollcall import duration

CADENCES = (300, 900, 1800, 3600, 6 * 3600, 12 * 3600, 24 * 3600)  # seconds
GONE = "no longer here"


class TestLockForm(forms.Form):
    until = forms.DateField(
        label="In test to the end of",
        widget=forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d"),
        help_text="At most 180 days from now.",
    )
    note = forms.CharField(
        label="What is tested",
        max_length=300,
        required=False,
        widget=forms.TextInput(
            attrs={"autocomplete": "off", "placeholder": "Holdout against the spring bundle, two ad sets"}
        ),
    )


class BreakLockForm(forms.Form):
    reason = forms.CharField(
        label="Why the test may be disturbed",
        max_length=2_000,
        help_text="It is shown with the audience, its versions and in the trail.",
        widget=forms.Textarea(attrs={"rows": 2}),
    )


class UserChoice(forms.ModelChoiceField):
    """Somebody who can sign in; whoever is named already stays choosable, and says that they are gone."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(User.objects.none(), *args, empty_label="Nobody", **kwargs)

    def label_from_instance(self, obj: Any) -> str:
        words = f"{obj} ({obj.get_role_display().lower()})"
        return words if obj.is_active else f"{words}, {GONE}"


class OwnersForm(forms.Form):
    """The four roles. Where nobody is named yet, somebody is suggested: nothing is named before it is saved."""

    seen = forms.CharField(widget=forms.HiddenInput, max_length=200)
    reason = forms.CharField(
        label="Why", max_length=500, required=False, widget=forms.TextInput(attrs={"autocomplete": "off"})
    )
    field_order = ["seen", *(role.field for role in owners.ROLES), "reason"]

    def __init__(self, *args: Any, audience: Audience, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        named = {role.field: getattr(audience, f"{role.field}_id") for role in owners.ROLES}
        people = User.objects.filter(is_active=True) | User.objects.filter(pk__in=[pk for pk in named.values() if pk])
        self.suggested = False
        for role in owners.ROLES:
            field = UserChoice(label=role.label, help_text=f"{role.means}.", required=role.needed)
            field.queryset = people.order_by("-is_active", "name", "email")
            self.fields[role.field] = field
            self.initial[role.field] = named[role.field]
            if named[role.field] is None and role.needed:
                self.initial[role.field] = self._suggestion(role, named, audience, user)
                self.suggested |= self.initial[role.field] is not None
        self.order_fields(self.field_order)
        self.initial["seen"] = seen(audience)

    @staticmethod
    def _suggestion(role: owners.Role, named: dict[str, int | None], audience: Audience, user: User) -> int | None:
        """Who wrote the rule answers for it, else whoever asks; who watches the match rate is mailed."""
        if role.field == "definition_owner":
            newest = audience.versions.select_related("author").order_by("-number").first()
            author = newest.author if newest else None
            return author.pk if author and author.is_active else user.pk
        return named["sync_owner"] or named["alert_owner"] or named["definition_owner"] or user.pk


def seen(audience: Audience) -> str:
    """Who was named when the page was opened."""
    return "-".join(str(getattr(audience, f"{role.field}_id") or 0) for role in owners.ROLES)


class DetailsForm(forms.Form):
    seen = forms.CharField(widget=forms.HiddenInput, max_length=100)
    description = forms.CharField(
        required=False,
        max_length=10_000,
        help_text="What it is for, for whoever meets it in an ad account.",
        widget=forms.Textarea(attrs={"rows": 3}),
        validators=[MaxLengthValidator(10_000)],
    )
    purpose = forms.ChoiceField(choices=Audience.Purpose.choices)
    cadence_seconds = forms.TypedChoiceField(label="Counted every", coerce=int)
    reason = forms.CharField(
        label="Why", max_length=500, required=False, widget=forms.TextInput(attrs={"autocomplete": "off"})
    )

    def __init__(self, *args: Any, cadence: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = [(seconds, duration(seconds)) for seconds in sorted({*CADENCES, cadence})]
        self.fields["cadence_seconds"].choices = choices  # type: ignore[attr-defined]


class HandOverForm(forms.Form):
    """Who takes over, for each audience and role that somebody holds: one for all, or one by one."""

    everything = UserChoice(label="Hand everything over to", required=False)
    reason = forms.CharField(
        label="Why", max_length=500, required=False, widget=forms.TextInput(attrs={"autocomplete": "off"})
    )

    def __init__(self, *args: Any, leaving: User, holdings: list[owners.Holding], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        people = User.objects.filter(is_active=True).exclude(pk=leaving.pk).order_by("name", "email")
        self.holdings = holdings
        self.fields["everything"].queryset = people  # type: ignore[attr-defined]
        self.fields["everything"].empty_label = "Choose for each below"  # type: ignore[attr-defined]
        for held in holdings:
            field = UserChoice(label=f"{held.role.label} of {held.audience.key}", required=False)
            field.queryset, field.empty_label = people, "As above"
            self.fields[self.name_of(held)] = field

    @staticmethod
    def name_of(held: owners.Holding) -> str:
        return f"row-{held.audience.pk}-{held.role.field}"

    def rows(self) -> list[tuple[owners.Holding, forms.BoundField]]:
        return [(held, self[self.name_of(held)]) for held in self.holdings]

    def successors(self) -> dict[tuple[int, str], User]:
        """(audience, field) → who takes over; what nobody takes is missing."""
        everything = self.cleaned_data.get("everything")
        chosen = {
            (held.audience.pk, held.role.field): self.cleaned_data.get(self.name_of(held)) or everything
            for held in self.holdings
        }
        return {place: user for place, user in chosen.items() if user is not None}
