"""Curves for tests: an audience that was so large for twenty days, and is so large now."""

from datetime import timedelta

from django.utils import timezone

from audiences.models import Audience, Membership


def grown(audience: Audience, *, usual: int, now: int) -> None:
    today = timezone.now().date()
    daily = [[(today - timedelta(days=back)).isoformat(), usual] for back in range(20, 0, -1)]
    Membership.objects.filter(audience=audience).update(count=now, daily=[*daily, [today.isoformat(), now]])
