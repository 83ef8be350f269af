"""Moments survive being stored, to the microsecond."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from appengine_compat.core import moments

offsets = st.integers(-14, 14).map(lambda hours: timezone(timedelta(hours=hours)))
aware = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=offsets)


@given(aware)
def test_a_datetime_comes_back_as_the_same_moment(moment):
    back = moments.to_datetime(moments.from_datetime(moment))
    assert back == moment
    assert back.tzinfo is timezone.utc


def test_seconds_are_rounded_to_the_nearest_microsecond():
    assert moments.from_seconds(1.0000006) == 1_000_001
