"""What people fill in beside an alert: until when it waits, how far a number may move, how long it is mute, what was spent."""

from datetime import datetime, time, timedelta
from typing import Any

from django import forms
from django.utils import timezone

from qa import limits

WAITS = {"1h": timedelta(hours=1), "1d": timedelta(days=1)}


class SnoozeForm(forms.Form):
    """One of the two usual waits by its button, or a moment."""

    wait = forms.ChoiceField(choices=[(key, key) for key in WAITS], required=False)
    until = forms.DateTimeField(
        required=False,
        label="Or until",
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
        input_formats=["%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S"],
        error_messages={"invalid": "Enter a day and a time."},
    )

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        if self.errors:
            return values
        if not values.get("wait") and not values.get("until"):
            self.add_error("until", "Say until when.")
        return values

    def moment(self) -> datetime:
        wait = WAITS.get(self.cleaned_data.get("wait") or "")
        return timezone.now() + wait if wait else self.cleaned_data["until"]


class LimitForm(forms.Form):
    """A share in percent."""

    share = forms.IntegerField(
        label="Alert from",
        min_value=round(limits.LEAST * 100),
        max_value=round(limits.MOST * 100),
        help_text="Percent, up or down against the usual.",
        widget=forms.NumberInput(attrs={"class": "short", "inputmode": "numeric"}),
        error_messages={"invalid": "Enter a whole number of percent."},
    )


class MuteForm(forms.Form):
    until = forms.DateField(
        label="To the end of",
        widget=forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d"),
        error_messages={"invalid": "Enter a day."},
    )
    reason = forms.CharField(
        label="Why", max_length=300, widget=forms.TextInput(attrs={"placeholder": "The sale moves every number"})
    )

    def end(self, zone: Any) -> datetime:
        """When that day ends where the reader is. Raises OverflowError for the last day of the calendar."""
        return datetime.combine(self.cleaned_data["until"] + timedelta(days=1), time(), tzinfo=zone)


class UsualForm(forms.Form):
    reason = forms.CharField(
        label="Why it is meant",
        max_length=300,
        widget=forms.TextInput(attrs={"placeholder": "The new rule is narrower"}),
    )


class SpendForm(forms.Form):
    amount = forms.DecimalField(
        label="Spent in a week",
        min_value=0,
        max_digits=12,
        decimal_places=2,
        error_messages={"invalid": "Enter an amount, such as 2400."},
    )
