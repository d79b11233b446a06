"""The installation itself: its settings, the people who sign in and the keys that programs use."""

from typing import Any, ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models


class Workspace(models.Model):
    """The one row (pk 1) of settings. It does not exist until the first set-up has been answered."""

    name = models.CharField(max_length=100)
    timezone = models.CharField(max_length=64, default="UTC")
    currency = models.CharField(max_length=3, default="EUR")
    default_region = models.CharField(max_length=2, default="US", help_text="Country of phone numbers without a prefix")
    consent_policy = models.JSONField(
        null=True,
        help_text='{"default": "opt_in" | "opt_out", "by_country": {"DE": "opt_in"}}; null: not answered, so nothing is sent',
    )
    consent_attributes = models.JSONField(
        default=list,
        help_text='[{"attribute": "ads_ok", "purposes": ["ad_user_data"], "yes": ["opted_in"], "no": []}]: read as consent',
    )
    review_above_percent = models.PositiveSmallIntegerField(
        default=20, help_text="A change that moves more of an audience's people than this needs a second person"
    )
    created_at = models.DateTimeField(auto_now_add=True)


class UserManager(BaseUserManager["User"]):
    def create_user(self, email: str, password: str | None = None, **fields: Any) -> "User":
        user = self.model(email=email.strip().lower(), **fields)
        user.set_password(password)
        user.save()
        return user

    def get_by_natural_key(self, username: str | None) -> "User":
        return self.get(email=(username or "").strip().lower())


class User(AbstractBaseUser):
    """Someone who signs in, by e-mail. An invited user has no usable password yet."""

    class Role(models.TextChoices):
        ADMIN = "admin", "Admin"
        MARKETER = "marketer", "Marketer"
        BUYER = "buyer", "Media buyer"
        OPERATOR = "operator", "Operator"

    email = models.EmailField(unique=True)
    name = models.CharField(max_length=100, blank=True)
    role = models.CharField(max_length=10, choices=Role.choices, default=Role.BUYER)
    timezone = models.CharField(max_length=64, blank=True, help_text="Left empty: the workspace's")
    single_keys = models.BooleanField(default=True, help_text="Single-key shortcuts")
    is_active = models.BooleanField(default=True)
    invited_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = UserManager()
    USERNAME_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    def __str__(self) -> str:
        return self.name or self.email


class ApiKey(models.Model):
    """A site id and the SHA-256 of its secret; the secret itself is shown once and kept nowhere."""

    name = models.CharField(max_length=100)
    site_id = models.CharField(max_length=32, unique=True)
    secret_sha256 = models.CharField(max_length=64)
    created_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL)
    created_at = models.DateTimeField(auto_now_add=True)
    last_used_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)


class KeptSecret(models.Model):
    """A random secret that must outlive every rotation of keys, wrapped by the newest of CREDENTIALS_KEYS."""

    name = models.CharField(max_length=32, primary_key=True)
    wrapped = models.TextField()
