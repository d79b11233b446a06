"""What people fill in on this floor's pages. A connector's own fields are its config_form; the rules behind are the services'."""

from datetime import date, datetime, time, timedelta
from typing import Any, ClassVar

from django import forms
from django.utils import timezone

from audiences.models import Audience
from destinations.connectors.base import Capabilities
from destinations.models import Destination
from destinations.models import Mapping as Connection

CADENCES = [
    (300, "Every 5 minutes"),
    (900, "Every 15 minutes"),
    (3600, "Every hour"),
    (4 * 3600, "Every 4 hours"),
    (86400, "Every day"),
]


class DestinationForm(forms.Form):
    """What every destination has, whatever its platform."""

    name = forms.CharField(max_length=200, help_text="As your colleagues know it, such as “Meta EU”.")
    key = forms.RegexField(
        r"^[A-Za-z0-9][A-Za-z0-9_-]*$",
        max_length=100,
        help_text="Letters, digits, _ and -. It never changes; files and commands use it.",
        error_messages={"invalid": "Letters, digits, _ and -, beginning with a letter or digit."},
    )
    base_url = forms.URLField(
        label="Address of the platform",
        required=False,
        max_length=500,
        assume_scheme="https",
        help_text="Left empty: the platform's own.",
    )


class RenameForm(forms.Form):
    name = DestinationForm.base_fields["name"]
    base_url = DestinationForm.base_fields["base_url"]


class ChooseForm(forms.Form):
    """The two ends of a new connection."""

    audience = forms.ModelChoiceField(Audience.objects.none(), to_field_name="key", empty_label="Choose an audience")
    destination = forms.ModelChoiceField(
        Destination.objects.none(), to_field_name="key", empty_label="Choose a destination"
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, rows in (
            ("audience", Audience.objects.filter(archived_at=None).order_by("key")),
            ("destination", Destination.objects.order_by("name")),
        ):
            field = self.fields[name]
            assert isinstance(field, forms.ModelChoiceField)
            field.queryset = rows


class ConnectionForm(forms.Form):
    """How an audience goes to a destination. `platform` says which identifiers it takes."""

    identifiers = forms.MultipleChoiceField(
        label="Identifiers to send",
        widget=forms.CheckboxSelectMultiple,
        help_text="The more of them, the more people the platform recognises. Each is hashed as this platform wants it.",
    )
    own_name = forms.CharField(
        label="Another name on the platform",
        required=False,
        help_text="Left empty, it is called there as the naming convention says, and is renamed when a new version is live.",
    )
    cadence_seconds = forms.TypedChoiceField(label="Sync", coerce=int, choices=CADENCES, initial=900)
    removal_limit_percent = forms.IntegerField(
        label="Ask before removing more than, in %",
        min_value=1,
        max_value=100,
        initial=50,
        help_text="A run that would remove a larger share of those who are there waits for a named approval.",
    )
    trial_percent = forms.IntegerField(label="Share of people in a trial, in %", min_value=1, max_value=100, initial=1)

    def __init__(self, *args: Any, platform: Capabilities, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        identifiers, name, cadence = (self.fields[f] for f in ("identifiers", "own_name", "cadence_seconds"))
        assert isinstance(identifiers, forms.MultipleChoiceField)
        assert isinstance(name, forms.CharField)
        assert isinstance(cadence, forms.TypedChoiceField)
        identifiers.choices = [(kind, words) for kind, words in platform.identifiers.items()]
        name.max_length = platform.name_length
        name.widget.attrs["maxlength"] = platform.name_length
        now = self.initial.get("cadence_seconds")
        if now and now not in dict(CADENCES):
            cadence.choices = [*CADENCES, (now, f"Every {now} seconds")]

    @classmethod
    def of(cls, mapping: Connection, platform: Capabilities, data: Any = None) -> "ConnectionForm":
        return cls(data, platform=platform, initial={field: getattr(mapping, field) for field in cls.base_fields})


class ReasonForm(forms.Form):
    """Why, for whoever asks later."""

    reason = forms.CharField(
        label="Why", required=False, max_length=500, widget=forms.TextInput(attrs={"autocomplete": "off"})
    )


class TypedForm(ReasonForm):
    """For what moves many people: the audience's key must be typed."""

    confirm = forms.CharField(
        label="Type the audience's key to go on",
        max_length=100,
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )

    def __init__(self, *args: Any, key: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.key = key
        self.fields["confirm"].help_text = key

    def clean_confirm(self) -> str:
        if self.cleaned_data["confirm"].strip() != self.key:
            raise forms.ValidationError("This is not the audience's key.")
        return self.key


class FreezeForm(forms.Form):
    reason = forms.CharField(
        label="Why", max_length=500, help_text="It is shown to everybody who looks at the connection."
    )
    until = forms.DateTimeField(
        label="Until",
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
        help_text="In your time zone. Then it goes on by itself.",
        initial=lambda: timezone.localtime() + timedelta(days=1),
    )

    def clean_until(self) -> datetime:
        until: datetime = self.cleaned_data["until"]
        if until <= timezone.now():
            raise forms.ValidationError("It must lie in the future.")
        return until


class ExceptionForm(forms.Form):
    """Why it may go live without what a gate asks for, and until when."""

    LONGEST: ClassVar[timedelta] = timedelta(days=90)

    reason = forms.CharField(
        label="Why", max_length=500, help_text="It stands on this connection's page, with your name, until it ends."
    )
    until = forms.DateField(
        label="Until the end of",
        widget=forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d"),
        help_text="At most 90 days from now. Then it counts no more.",
        initial=lambda: timezone.localdate() + timedelta(days=14),
    )

    def clean_until(self) -> datetime:
        day: date = self.cleaned_data["until"]
        today = timezone.localdate()
        if day < today:
            raise forms.ValidationError("It must not lie in the past.")
        if day - today > self.LONGEST:
            raise forms.ValidationError("At most 90 days from now.")
        return timezone.make_aware(datetime.combine(day, time(23, 59, 59)))


class AdoptForm(forms.Form):
    remote_id = forms.CharField(label="The audience's id on the platform", max_length=200)
    add_only = forms.BooleanField(
        label="Only add: leave those who are in it already, and show them as leftovers", required=False
    )
