"""What people fill in on this floor's pages: fields and their words. Rules that hold for commands too are the services'."""

import zoneinfo
from typing import Any, ClassVar

import phonenumbers
from django import forms
from django.contrib.auth import authenticate
from django.core.files.uploadedfile import UploadedFile

from audiences.clock import HOUR
from audiences.models import Audience, User
from audiences.people.feeds import Feed
from audiences.services import feeds

TIMEZONES = sorted(
    name
    for name in zoneinfo.available_timezones()
    if name == "UTC"
    or (name.split("/")[0] in {"Africa", "America", "Asia", "Atlantic", "Australia", "Europe", "Indian", "Pacific"})
)
CURRENCIES = [
    "EUR",
    "USD",
    "GBP",
    "CHF",
    "SEK",
    "NOK",
    "DKK",
    "PLN",
    "CZK",
    "HUF",
    "RON",
    "BGN",
    "ISK",
    "TRY",
    "CAD",
    "AUD",
    "NZD",
    "JPY",
    "CNY",
    "HKD",
    "SGD",
    "KRW",
    "INR",
    "BRL",
    "MXN",
    "ZAR",
    "AED",
    "ILS",
]
REGIONS = sorted(phonenumbers.SUPPORTED_REGIONS)
CONSENT = [
    ("opt_out", "Send people unless they have said no (opt-out)"),
    ("opt_in", "Send only people who have said yes (opt-in)"),
]
UPLOAD_LIMIT = 2_000_000_000  # bytes; larger files go through `manage.py import_…`, which does not copy them first


def _timezones() -> list[tuple[str, str]]:
    return [(name, name.replace("_", " ")) for name in TIMEZONES]


def _codes(codes: list[str]) -> list[tuple[str, str]]:
    return [(code, code) for code in codes]


class SignInForm(forms.Form):
    email = forms.CharField(
        label="E-mail", max_length=254, widget=forms.EmailInput(attrs={"autocomplete": "username", "autofocus": True})
    )
    password = forms.CharField(
        max_length=1000, strip=False, widget=forms.PasswordInput(attrs={"autocomplete": "current-password"})
    )
    user: User | None = None

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        if "email" in values and "password" in values:
            user = authenticate(None, username=values["email"].strip().lower(), password=values["password"])
            if not isinstance(user, User):
                # The same words whether or not the address is known.
                raise forms.ValidationError("E-mail or password is wrong, or this user may no longer sign in.")
            self.user = user
        return values


class NewPasswordForm(forms.Form):
    """A password typed twice. Whether it is strong enough is the service's to say."""

    password = forms.CharField(
        max_length=1000,
        strip=False,
        help_text="At least 10 characters, and not one of the common ones.",
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )
    again = forms.CharField(
        label="Password again",
        max_length=1000,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        if "password" in values and "again" in values and values["password"] != values["again"]:
            self.add_error("again", "This is not the same password.")
        return values


class ConsentForm(forms.Form):
    consent = forms.ChoiceField(
        label="People who have said nothing",
        choices=CONSENT,
        widget=forms.RadioSelect,
        help_text="Nobody is sent anywhere before this is answered.",
    )
    opt_in_countries = forms.CharField(
        label="Countries where it is opt-in",
        required=False,
        max_length=1000,
        help_text="Two letters each, such as DE, FR, AT. Elsewhere the answer above holds.",
        widget=forms.TextInput(attrs={"placeholder": "DE, FR, AT", "autocapitalize": "characters"}),
    )
    opt_out_countries = forms.CharField(
        label="Countries where it is opt-out",
        required=False,
        max_length=1000,
        widget=forms.TextInput(attrs={"placeholder": "US, CA", "autocapitalize": "characters"}),
    )

    def clean_opt_in_countries(self) -> list[str]:
        return self._countries("opt_in_countries")

    def clean_opt_out_countries(self) -> list[str]:
        return self._countries("opt_out_countries")

    def _countries(self, field: str) -> list[str]:
        codes = [code.upper() for code in self.cleaned_data[field].replace(",", " ").split()]
        unknown = sorted({code for code in codes if code not in phonenumbers.SUPPORTED_REGIONS})
        if unknown:
            raise forms.ValidationError(f"Not the two letters of a country: {', '.join(unknown[:5])}")
        return codes

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        both = sorted(set(values.get("opt_in_countries", ())) & set(values.get("opt_out_countries", ())))
        if both:
            self.add_error("opt_out_countries", f"Named in both lists: {', '.join(both)}")
        return values

    def policy(self) -> dict[str, Any]:
        """The answer in the form in which the workspace keeps it."""
        by_country = dict.fromkeys(self.cleaned_data["opt_in_countries"], "opt_in")
        by_country |= dict.fromkeys(self.cleaned_data["opt_out_countries"], "opt_out")
        return {"default": self.cleaned_data["consent"], "by_country": by_country}

    @classmethod
    def of(cls, policy: dict[str, Any] | None) -> "ConsentForm":
        policy = policy or {}
        by_country = policy.get("by_country", {})
        return cls(
            initial={
                "consent": policy.get("default"),
                "opt_in_countries": ", ".join(code for code, answer in by_country.items() if answer == "opt_in"),
                "opt_out_countries": ", ".join(code for code, answer in by_country.items() if answer == "opt_out"),
            }
        )


class ConsentAttributeForm(forms.Form):
    """One attribute that says yes or no to some uses of a person's data."""

    attribute = forms.CharField(
        max_length=150, widget=forms.TextInput(attrs={"list": "attribute-names", "spellcheck": "false"})
    )
    purposes = forms.MultipleChoiceField(
        label="It is about",
        choices=[
            ("ad_user_data", "Use of their data for ads"),
            ("ad_personalization", "Personalised ads"),
            ("analytics", "Analytics"),
        ],
        widget=forms.CheckboxSelectMultiple,
    )
    yes = forms.CharField(
        label="Further words for yes",
        required=False,
        max_length=500,
        help_text="Separated by commas. True, yes, granted and 1 are understood without.",
    )
    no = forms.CharField(
        label="Further words for no",
        required=False,
        max_length=500,
        help_text="False, no, denied and 0 are understood without.",
    )

    def rule(self) -> dict[str, Any]:
        """In the form in which the workspace keeps it."""
        values = self.cleaned_data
        return {
            "attribute": values["attribute"],
            "purposes": values["purposes"],
            "yes": values["yes"].split(","),
            "no": values["no"].split(","),
        }


class WorkspaceForm(forms.Form):
    name = forms.CharField(label="Workspace name", max_length=100)
    timezone = forms.ChoiceField(label="Time zone", choices=_timezones, initial="UTC")
    currency = forms.ChoiceField(choices=_codes(CURRENCIES), initial="EUR")
    default_region = forms.ChoiceField(label="Phone country", choices=_codes(REGIONS), initial="US")


class SettingsForm(WorkspaceForm):
    """Those, and what is decided once there is something to decide on."""

    review_above_percent = forms.IntegerField(
        label="A second person approves changes above",
        min_value=0,
        max_value=1000,
        initial=20,
        help_text="Per cent of an audience’s people who enter or leave. Changes of suppression audiences always need one.",
    )


class SetupForm(NewPasswordForm, WorkspaceForm, ConsentForm):
    """The first page of an empty installation: its first admin and what must be known before anything is sent."""

    email = forms.EmailField(label="Your e-mail", widget=forms.EmailInput(attrs={"autocomplete": "username"}))
    user_name = forms.CharField(label="Your name", max_length=100, required=False)
    field_order = [
        "user_name", "email", "password", "again",
        "name", "timezone", "currency", "default_region",
        "consent", "opt_in_countries", "opt_out_countries",
    ]  # fmt: skip

    def you(self) -> list[forms.BoundField]:
        return [self[name] for name in ("user_name", "email")]

    def passwords(self) -> list[forms.BoundField]:
        return [self[name] for name in ("password", "again")]

    def place(self) -> list[forms.BoundField]:
        return [self[name] for name in ("timezone", "currency", "default_region")]

    def countries(self) -> list[forms.BoundField]:
        return [self[name] for name in ("opt_in_countries", "opt_out_countries")]


class AccountForm(forms.Form):
    name = forms.CharField(max_length=100, required=False)
    timezone = forms.ChoiceField(
        label="Time zone", required=False, choices=lambda: [("", "The workspace's"), *_timezones()]
    )
    single_keys = forms.BooleanField(label="Single keys do things: / searches, g a opens audiences", required=False)


class PersonSearchForm(forms.Form):
    q = forms.CharField(
        label="Customer id, e-mail or phone",
        max_length=254,
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )


class UploadForm(forms.Form):
    kind = forms.ChoiceField(
        label="What is in it",
        choices=[("profiles", "People: one row a person"), ("events", "Events: one row an event")],
        widget=forms.RadioSelect,
        initial="profiles",
    )
    file = forms.FileField(
        label="File", help_text="CSV, CSV.gz or Parquet, with the names of its columns in the first row."
    )

    def clean_file(self) -> UploadedFile:
        file = self.cleaned_data["file"]
        if not file.name.lower().endswith((".csv", ".csv.gz", ".parquet")):
            raise forms.ValidationError("The file's name must end in .csv, .csv.gz or .parquet.")
        if file.size > UPLOAD_LIMIT:
            raise forms.ValidationError("Larger than 2 GB. Use the commands import_profiles or import_events for it.")
        return file


class InviteForm(forms.Form):
    email = forms.EmailField(label="E-mail")
    name = forms.CharField(max_length=100, required=False)
    role = forms.ChoiceField(choices=User.Role.choices, initial=User.Role.MARKETER)


class ApiKeyForm(forms.Form):
    name = forms.CharField(
        max_length=100,
        label="Name",
        help_text="What will use it, such as “Shop backend”. It is shown beside its last use.",
    )


class SilenceForm(forms.Form):
    """How long one event may be silent. Left empty: as is usual; 0: however long."""

    hours = forms.IntegerField(min_value=0, max_value=feeds.LONGEST_HOURS, required=False, label="Hours")

    @classmethod
    def of(cls, feed: Feed) -> "SilenceForm":
        hours = None if not feed.by_hand else (feed.allowed_us or 0) // HOUR
        return cls(initial={"hours": hours}, auto_id=False)


class ColumnsForm(forms.Form):
    """Which column is what. A guess by name is made; whatever is not named becomes an attribute or a property."""

    FIELDS: ClassVar[dict[str, list[tuple[str, str, bool, str]]]] = {
        # field, label, required, other names under which it is met
        "profiles": [
            ("id", "Customer id", True, "customer_id customerid user_id userid external_id profile"),
            ("email", "E-mail", False, "email_address e-mail mail"),
            ("phone", "Phone", False, "phone_number mobile msisdn tel telephone"),
            ("created_at", "Customer since", False, "created signup signed_up registered"),
            ("first_name", "First name", False, "firstname given_name"),
            ("last_name", "Last name", False, "lastname surname family_name"),
            ("country", "Country", False, "country_code"),
            ("zip", "Postcode", False, "postcode postal_code zip_code plz"),
            ("mobile_ad_id", "Mobile advertising id", False, "idfa gaid aaid advertising_id"),
            ("consent_ad_user_data", "Consent: data for ads", False, ""),
            ("consent_ad_personalization", "Consent: personalised ads", False, ""),
            ("consent_analytics", "Consent: analytics", False, ""),
            ("consent_at", "Consent given or withdrawn on", False, "consent_date consent_time"),
        ],
        "events": [
            ("profile", "Customer id", True, "customer_id customerid user_id userid external_id id"),
            ("time", "Time", True, "date timestamp created_at at occurred_at event_time"),
            ("name", "Event name", False, "event event_name type"),
        ],
    }

    def __init__(self, *args: Any, kind: str, columns: list[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = [("", "Not in this file"), *((name, name) for name in columns)]
        by_name = {name.strip().casefold().replace(" ", "_"): name for name in reversed(columns)}
        self.kind = kind
        for field, label, required, others in self.FIELDS[kind]:
            guess = next((by_name[name] for name in (field, *others.split()) if name in by_name), "")
            self.fields[f"map_{field}"] = forms.ChoiceField(
                label=label, choices=choices, required=required, initial=guess
            )
        if kind == "events":
            self.fields["event_name"] = forms.CharField(
                label="Or one name for every row",
                required=False,
                max_length=100,
                help_text="Such as “purchase”, where no column holds the name.",
            )

    def mapping(self) -> dict[str, str]:
        """Our field → the column."""
        return {
            name.removeprefix("map_"): column
            for name, column in self.cleaned_data.items()
            if name.startswith("map_") and column
        }

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        if self.kind == "events" and bool(values.get("map_name")) == bool(values.get("event_name")):
            self.add_error(
                "event_name",
                "Choose the column that holds the event's name, or give one name for every row: one of the two.",
            )
        return values


class ExclusionForm(forms.Form):
    """Why one audience leaves another's people out; and which version's numbers were looked at."""

    seen = forms.IntegerField(widget=forms.HiddenInput, min_value=0, max_value=2**31 - 1)
    reason = forms.CharField(
        label="Why", max_length=500, help_text="Stands on record beside the change, for whoever asks later."
    )

    @classmethod
    def of(cls, audience: Audience, other: Audience) -> "ExclusionForm":
        version = audience.live_version
        initial = {"seen": version.number if version else 0, "reason": f"People who are in {other.key} are left out"}
        return cls(initial=initial, auto_id=f"{audience.key}-%s")
