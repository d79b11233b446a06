"""What people and commands may do on this floor. Every function takes the acting user first (None: the system), by keyword, and
leaves a line in the audit trail."""

from audiences.vocabulary import Problem


class Refused(Exception):
    """Nothing was changed. Each problem has the field it concerns ("" where none) and words."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


class Stopped(Refused):
    """A gate objected (signals.preflight): what it says can be put right, or an exception written."""


def refuse(words: str, path: str = "") -> Refused:
    """One problem, to be raised."""
    return Refused(Problem(path, words))
