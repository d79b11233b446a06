"""Makes this floor's jobs known to Celery. The work itself is in the modules named here."""

from qa import spot_check
from qa.sample import fill

__all__ = ["fill", "spot_check"]
