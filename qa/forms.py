"""What people fill in on this floor's pages: fields and their words. Rules that hold for commands too are the services'."""

from typing import Any

from django import forms

from audiences.models import Audience
from destinations.models import Mapping
from qa import spot_check


class _Connection(forms.ModelChoiceField):
    def label_from_instance(self, obj: Any) -> str:
        return f"{obj.destination.name} ({obj.get_state_display().lower()})"


class DrawForm(forms.Form):
    """Which connection's side to look at, and how many people."""

    connection = _Connection(
        queryset=Mapping.objects.none(),
        required=False,
        label="Platform to look at",
        empty_label="None: the rule alone",
        help_text="What this connection was told of each person, and what the platform says.",
    )
    size = forms.TypedChoiceField(
        label="People",
        coerce=int,
        choices=[(number, str(number)) for number in (spot_check.FEWEST, 15, spot_check.MOST)],
        initial=spot_check.MOST,
        help_text="Half inside, a quarter just left, a quarter just outside.",
    )

    def __init__(self, audience: Audience, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        rows = Mapping.objects.filter(audience=audience).exclude(state=Mapping.State.RETIRED)
        rows = rows.select_related("destination").order_by("-ledger__ever_sent_count", "destination__name")
        field = self.fields["connection"]
        assert isinstance(field, _Connection)
        field.queryset = rows
        if not self.is_bound and "connection" not in self.initial:
            self.initial["connection"] = rows.first()


class NoteForm(forms.Form):
    """What somebody found of one person by looking at the platform themselves."""

    FOUND = (("yes", "Found there"), ("no", "Not found there"), ("", "Not looked"))

    by_hand = forms.ChoiceField(label="I checked by hand", choices=FOUND, required=False, widget=forms.RadioSelect)
    note = forms.CharField(
        label="Note",
        required=False,
        max_length=300,
        widget=forms.TextInput(
            attrs={"autocomplete": "off", "placeholder": "Where you looked, without a name or address"}
        ),
    )

    def found(self) -> bool | None:
        return {"yes": True, "no": False}.get(self.cleaned_data["by_hand"])


class SignForm(forms.Form):
    """The note under a sign-off; needed where too few agree."""

    note = forms.CharField(label="Note", required=False, max_length=1000, widget=forms.Textarea(attrs={"rows": 2}))
