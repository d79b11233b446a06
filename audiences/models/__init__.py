"""The tables of this floor, one module a subject. Fields and constraints only: writes are in services, reads in queries."""

from audiences.models.audience import Audience, Replacement, TestLock
from audiences.models.jobs import Job, Tally, Worker
from audiences.models.membership import Membership, Refresh
from audiences.models.naming import NamingConvention, Renaming
from audiences.models.people import (
    Alias,
    AttributeName,
    ChangeLog,
    Consent,
    ConsentStatement,
    Counter,
    Event,
    EventKey,
    EventName,
    Identity,
    ImportFile,
    LakeColumn,
    LakeFile,
    PersonList,
    Pin,
    Profile,
    ProfileChange,
    ProfileKey,
    PropertyName,
    RefusedRow,
    Survey,
    Tombstone,
)
from audiences.models.privacy import PrivacyRequest
from audiences.models.review import Measurement, Review
from audiences.models.segment import DraftStep, Preview, SegmentVersion
from audiences.models.trail import AuditEntry
from audiences.models.workspace import ApiKey, KeptSecret, User, Workspace

__all__ = [
    "Alias",
    "ApiKey",
    "AttributeName",
    "Audience",
    "AuditEntry",
    "ChangeLog",
    "Consent",
    "ConsentStatement",
    "Counter",
    "DraftStep",
    "Event",
    "EventKey",
    "EventName",
    "Identity",
    "ImportFile",
    "Job",
    "KeptSecret",
    "LakeColumn",
    "LakeFile",
    "Measurement",
    "Membership",
    "NamingConvention",
    "PersonList",
    "Pin",
    "Preview",
    "PrivacyRequest",
    "Profile",
    "ProfileChange",
    "ProfileKey",
    "PropertyName",
    "Refresh",
    "RefusedRow",
    "Renaming",
    "Replacement",
    "Review",
    "SegmentVersion",
    "Survey",
    "Tally",
    "TestLock",
    "Tombstone",
    "User",
    "Worker",
    "Workspace",
]
