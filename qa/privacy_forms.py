"""What is filled in about privacy requests. Identifiers are posted, and stand in no address."""

from datetime import UTC, date, datetime, time, timedelta

from django import forms
from django.core.files.uploadedfile import UploadedFile
from django.utils import timezone

from audiences.models import PrivacyRequest

KINDS = [
    (PrivacyRequest.Kind.ERASURE.value, "Erasure: remove everywhere, forget, and never let them back"),
    (PrivacyRequest.Kind.SUPPRESSION.value, "Suppression: do not sell or advertise; an admin may lift it later"),
]
LIST_LIMIT = 50_000_000  # bytes


class _Asked(forms.Form):
    """What every request has, whether one or a list."""

    kind = forms.ChoiceField(label="What they ask for", choices=KINDS, widget=forms.RadioSelect, initial=KINDS[0][0])
    asked_on = forms.DateField(
        label="They asked on",
        initial=lambda: timezone.localdate(),
        widget=forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d"),
        help_text="The 30 days that the law gives run from here.",
    )
    reference = forms.CharField(
        label="Your reference",
        max_length=100,
        required=False,
        help_text="Such as a ticket number. It is kept: no names or addresses.",
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )

    def clean_asked_on(self) -> date:
        day: date = self.cleaned_data["asked_on"]
        today = timezone.localdate()
        if day > today:
            raise forms.ValidationError("That day is still to come.")
        if day < today - timedelta(days=366):
            raise forms.ValidationError("More than a year ago: give the day of their last message.")
        return day

    def clean_reference(self) -> str:
        text: str = self.cleaned_data["reference"]
        if "@" in text:
            raise forms.ValidationError("It is kept after they are forgotten, so it must not hold an e-mail address.")
        return text

    def asked_at(self) -> datetime:
        """The start of that day: no deadline is counted too late."""
        return datetime.combine(self.cleaned_data["asked_on"], time(), tzinfo=UTC)


class RequestForm(_Asked):
    """Somebody by an identifier of theirs; or, from their own page, by their number."""

    identifier = forms.CharField(
        label="Customer id, e-mail or phone",
        max_length=254,
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    field_order = ("identifier", "kind", "asked_on", "reference")

    def __init__(self, *args: object, by_number: bool = False, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        if by_number:
            del self.fields["identifier"]


class ListForm(_Asked):
    """A file of them."""

    file = forms.FileField(
        label="File",
        help_text="CSV or CSV.gz with the names of its columns in the first row: id, email, phone, or identifier for any of them.",
    )
    sure = forms.BooleanField(label="Whoever is named in it has asked for this. It cannot be undone.")
    field_order = ("file", "kind", "asked_on", "reference", "sure")

    def clean_file(self) -> UploadedFile:
        file: UploadedFile = self.cleaned_data["file"]
        if not (file.name or "").lower().endswith((".csv", ".csv.gz")):
            raise forms.ValidationError("The file's name must end in .csv or .csv.gz.")
        if (file.size or 0) > LIST_LIMIT:
            raise forms.ValidationError("Larger than 50 MB. Use the command erase for it.")
        return file


class ReasonForm(forms.Form):
    """Why, for what is kept beside a name."""

    reason = forms.CharField(
        label="Why",
        max_length=500,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="It is kept, with your name. No names or addresses of the person.",
    )
