"""Questions that this floor asks upward. Whoever answers is on a floor above and is not known here."""

from django.dispatch import Signal

# Sent with `mapping`, `run` and `plan` (plan.Plan) before anything of a run is told to a platform. A receiver that raises
# Objection stops the push; its words are shown on the run.
preflight = Signal()


class Objection(Exception):
    """Why this must not be sent now, in words that a person can act on."""
