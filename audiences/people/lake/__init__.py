"""The lake: events of the past and the profiles' projection as Parquet files, and which of them are live. These are its doors.

A reader takes files and hot rows in one moment, or a flush in between hides rows from it:

    with lake.one_moment():
        contents = lake.contents(pinned.snapshot)
        hot = lake.hot_events(contents.flushed, pinned.snapshot.hot)
        changed = lake.changed_profiles(pinned.snapshot)

One that keeps hot rows reads only those above the mark it has (if that is above `flushed`), and drops those up to `flushed`.
Merges are in `contents.aliases`: events, hot or not, may still carry the old number. One that misses a file starts again.
"""

from audiences.people.lake.columns import want_columns
from audiences.people.lake.compaction import compact, forget_removed, holding, sweep_files
from audiences.people.lake.flush import flush
from audiences.people.lake.hot import changed_profiles, hot_events, hot_events_of, merged_into
from audiences.people.lake.manifest import (
    Contents,
    EventFile,
    Overtaken,
    ProfileFile,
    SnapshotGone,
    StagedTooLate,
    contents,
    let_go,
    one_moment,
    pin,
    pinned,
    publish,
    publishing,
    repin,
    take_snapshot,
)
from audiences.people.lake.projection import project_profiles
from audiences.people.lake.reading import Known, Part, read_events
from audiences.people.lake.staging import EVENTS, Staged, discard, stage_events
from audiences.people.pins import Pinned, Snapshot

__all__ = [
    "EVENTS",
    "Contents",
    "EventFile",
    "Known",
    "Overtaken",
    "Part",
    "Pinned",
    "ProfileFile",
    "Snapshot",
    "SnapshotGone",
    "Staged",
    "StagedTooLate",
    "changed_profiles",
    "compact",
    "contents",
    "discard",
    "flush",
    "forget_removed",
    "holding",
    "hot_events",
    "hot_events_of",
    "let_go",
    "merged_into",
    "one_moment",
    "pin",
    "pinned",
    "project_profiles",
    "publish",
    "publishing",
    "read_events",
    "repin",
    "stage_events",
    "sweep_files",
    "take_snapshot",
    "want_columns",
]
