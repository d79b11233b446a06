"""What people fill in to export a record and to name a warehouse. What may be in it, the services say."""

from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django import forms

from audiences import clock
from destinations.models import RecordExport
from destinations.record import shape
from destinations.services import warehouse

TABLES = (
    (shape.MEMBERSHIPS, "Memberships: who was in, from when to when"),
    (shape.DELIVERIES, "Calls: what platforms were told, and their answers"),
    (shape.DELIVERED_PEOPLE, "People in those calls, and what became of each"),
    (shape.EVENTS, "Events of whoever was a member in the period"),
    (shape.HOLDOUTS, "Holdouts: who was held out, and who was not"),
    (shape.AUDIENCES, "The audience itself"),
)
_CADENCES = {900: "Every 15 minutes", 3600: "Every hour", 21_600: "Every 6 hours", 86_400: "Every day"}


class ExportForm(forms.Form):
    start = forms.DateField(label="From", widget=forms.DateInput(attrs={"type": "date"}))
    end = forms.DateField(label="Up to and with", widget=forms.DateInput(attrs={"type": "date"}))
    tables = forms.MultipleChoiceField(
        label="What",
        choices=[(table.name, words) for table, words in TABLES],
        initial=[table.name for table, _ in TABLES],
        widget=forms.CheckboxSelectMultiple,
    )
    file_format = forms.ChoiceField(
        label="As",
        choices=[
            (RecordExport.Format.PARQUET.value, "Parquet, for notebooks and warehouses"),
            (
                RecordExport.Format.CSV.value,
                "CSV, for spreadsheets: texts that a spreadsheet would run get a ' before them",
            ),
        ],
        initial=RecordExport.Format.PARQUET.value,
        widget=forms.RadioSelect,
    )

    @classmethod
    def blank(cls, today: date) -> "ExportForm":
        """The last 90 days."""
        return cls(initial={"start": today - timedelta(days=89), "end": today})

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        start, end = values.get("start"), values.get("end")
        if start and end and start > end:
            self.add_error("end", "This is before the day on which it begins.")
        if end and not date(1970, 1, 2) <= end <= date(9000, 1, 1):
            self.add_error("end", "There is nothing to say of that year.")
        if start and not date(1970, 1, 2) <= start <= date(9000, 1, 1):
            self.add_error("start", "There is nothing to say of that year.")
        return values

    def period(self, zone: ZoneInfo) -> tuple[int, int]:
        """From the first day's beginning to the last one's end, where the reader is, in µs."""
        start = datetime.combine(self.cleaned_data["start"], time(), tzinfo=zone)
        end = datetime.combine(self.cleaned_data["end"] + timedelta(days=1), time(), tzinfo=zone)
        return clock.to_us(start), clock.to_us(end)


class WarehouseForm(forms.Form):
    url = forms.CharField(
        label="Address",
        required=False,
        max_length=2_000,
        widget=forms.PasswordInput(
            attrs={"autocomplete": "off", "placeholder": "postgresql://user:password@host:5432/database"}
        ),
    )
    schema = forms.CharField(
        max_length=63,
        help_text="It is made if it is not there. Nothing outside it is read or written.",
        widget=forms.TextInput(attrs={"spellcheck": "false", "autocomplete": "off"}),
    )
    cadence_seconds = forms.TypedChoiceField(
        label="Loaded",
        coerce=int,
        choices=[(seconds, _CADENCES[seconds]) for seconds in warehouse.CADENCES],
    )
    with_events = forms.BooleanField(
        label="Events too",
        required=False,
        help_text="They are the largest part. Turned off later, those that were loaded are removed there.",
    )
