"""Breakers: what opens them, how long they stay open, and what a trial decides."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from roadstream.stages.breaker import (
    Breaker,
    Cooldown,
    MemberBreaker,
    MemberPolicy,
    ShareBreaker,
    SharePolicy,
)
from tests.kits.examples import examples

COOLDOWN = Cooldown(first=4.0, longest=20.0)
MEMBER = MemberPolicy(pictures=4, batches=2, cooldown=COOLDOWN)
SHARE = SharePolicy(share=0.5, last=100, least=20, cooldown=COOLDOWN)


def state(breaker: Breaker) -> str:
    """Return its state, which mypy takes to stay what it was."""
    return breaker.state


def test_pauses_grow_up_to_the_longest() -> None:
    breaker, now, pauses = Breaker(COOLDOWN), 0.0, []
    for _ in range(5):
        breaker.trip(now)
        pauses.append(breaker.retry_at - now)
        assert not breaker.allows(breaker.retry_at - 0.001)
        now = breaker.retry_at
        assert breaker.allows(now)

    assert pauses == [4.0, 8.0, 16.0, 20.0, 20.0]
    assert (breaker.opened, breaker.trials) == (5, 5)


def test_pauses_start_over_after_a_long_time_of_health_only() -> None:
    breaker = Breaker(COOLDOWN)
    breaker.trip(0.0)
    assert breaker.allows(4.0)
    breaker.recover(4.0)
    breaker.trip(7.9)  # closed for less than its last pause of 4 s
    assert breaker.retry_at == 7.9 + 8.0
    assert breaker.allows(16.0)
    breaker.recover(16.0)
    breaker.trip(24.0)  # closed for its last pause of 8 s

    assert breaker.retry_at == 24.0 + 4.0


def test_a_half_open_breaker_lets_one_trial_through() -> None:
    breaker = Breaker(COOLDOWN)
    breaker.trip(0.0)
    assert breaker.ready(4.0)
    assert state(breaker) == "open"  # to ask changes nothing
    assert breaker.allows(4.0)

    assert not breaker.ready(7.9)
    assert not breaker.allows(7.9)
    assert breaker.allows(8.0)  # the first was never heard of again
    breaker.undecided(8.5)
    assert breaker.allows(8.5)
    assert breaker.trials == 3
    breaker.recover(9.0)
    assert breaker.allows(9.0)
    assert breaker.allows(9.0)


def test_a_closed_breaker_cannot_recover() -> None:
    with pytest.raises(KeyError):
        Breaker().recover(0.0)


def test_one_picture_never_opens_a_members_breaker_however_often_it_fails() -> None:
    breaker = MemberBreaker(MEMBER)
    for now in range(1000):
        breaker.failed(["the same"], float(now))

    assert state(breaker) == "closed"


def test_a_few_pictures_never_open_it_if_others_succeed_between() -> None:
    breaker = MemberBreaker(MEMBER)
    for now in range(1000):
        breaker.failed([f"{now}-{i}" for i in range(100)], float(now))
        breaker.succeeded(float(now))

    assert state(breaker) == "closed"


def test_one_batch_however_large_does_not_open_it() -> None:
    breaker = MemberBreaker(MEMBER)
    breaker.failed([f"{i}" for i in range(1000)], 0.0)

    assert state(breaker) == "closed"


def test_failing_on_everything_opens_it_and_one_success_closes_it_again() -> None:
    breaker = MemberBreaker(MEMBER)
    breaker.failed(["a", "b"], 1.0)
    assert breaker.allows(1.0)
    breaker.failed(["c", "d"], 2.0)
    assert not breaker.allows(2.0)
    assert not breaker.allows(5.9)
    assert breaker.skipped == 2

    assert breaker.allows(6.0)
    breaker.succeeded(6.5)
    assert state(breaker) == "closed"
    breaker.failed(["e"], 7.0)
    assert state(breaker) == "closed"


def test_a_trial_that_fails_keeps_it_open() -> None:
    breaker = MemberBreaker(MEMBER)
    breaker.failed(["a", "b"], 0.0)
    breaker.failed(["c", "d"], 0.0)
    assert breaker.allows(4.0)
    breaker.failed(["e"], 4.0)

    assert state(breaker) == "open"
    assert breaker.retry_at == 12.0


def test_a_tier_pauses_above_its_share_of_the_last_records() -> None:
    breaker = ShareBreaker(SHARE)
    breaker.observe(19, 19, 0.0)
    assert state(breaker) == "closed"  # too few to tell
    breaker.observe(0, 19, 0.0)
    assert state(breaker) == "closed"  # one half is not more than half
    breaker.observe(1, 1, 0.0)

    assert state(breaker) == "open"


def test_a_tier_looks_back_no_further_than_it_should() -> None:
    breaker = ShareBreaker(SHARE)
    for now in range(100):
        breaker.observe(0, 10, float(now))
    for now in range(100, 105):
        breaker.observe(10, 10, float(now))
    assert state(breaker) == "closed"
    breaker.observe(10, 10, 105.0)

    assert state(breaker) == "open"


def test_what_ends_while_it_is_open_decides_nothing_and_the_trial_alone_decides() -> None:
    breaker = ShareBreaker(SHARE)
    breaker.observe(50, 50, 0.0)
    breaker.observe(0, 100, 1.0)
    assert state(breaker) == "open"
    assert breaker.allows(4.0)
    breaker.observe(3, 4, 4.0)
    assert state(breaker) == "open"
    assert breaker.allows(12.0)
    breaker.observe(1, 4, 12.0)

    assert state(breaker) == "closed"


class MemberMachine(RuleBasedStateMachine):
    """Against a list of what happened since the last success."""

    @initialize(pictures=st.integers(1, 6), batches=st.integers(1, 4))
    def begin(self, pictures: int, batches: int) -> None:
        self.policy = MemberPolicy(pictures=pictures, batches=batches, cooldown=COOLDOWN)
        self.breaker = MemberBreaker(self.policy)
        self.now = 100.0
        self.streak: list[set[str]] = []
        self.opened_at: float | None = None

    @rule(seconds=st.sampled_from([0.0, 1.0, 5.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(pictures=st.sets(st.sampled_from("abcdefgh"), min_size=1))
    def a_batch_fails(self, pictures: set[str]) -> None:
        if not self.breaker.allows(self.now):
            return
        trial = self.breaker.state == "half_open"
        self.breaker.failed(sorted(pictures), self.now)
        self.streak.append(pictures)
        distinct = set().union(*self.streak)
        enough = len(self.streak) >= self.policy.batches and len(distinct) >= self.policy.pictures
        assert (self.breaker.state == "open") is (enough or trial)
        if enough or trial:
            self.streak, self.opened_at = [], self.now

    @rule()
    def a_batch_succeeds(self) -> None:
        if self.breaker.allows(self.now):
            self.breaker.succeeded(self.now)
            self.streak = []
            assert self.breaker.state == "closed"

    @invariant()
    def it_is_open_for_at_least_the_first_and_at_most_the_longest_pause(self) -> None:
        if self.breaker.state == "open":
            assert self.opened_at is not None
            pause = self.breaker.retry_at - self.opened_at
            assert COOLDOWN.first - 1e-9 <= pause <= COOLDOWN.longest + 1e-9


TestMemberBreaker = MemberMachine.TestCase
TestMemberBreaker.settings = settings(
    deadline=None, max_examples=examples(80), stateful_step_count=25
)


@settings(deadline=None, max_examples=examples(150))
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=60))
def test_a_tier_pauses_exactly_when_its_last_records_say_so(
    batches: list[tuple[int, int]],
) -> None:
    breaker = ShareBreaker(SHARE)
    records: list[int] = []
    ends: list[int] = []
    for now, (failed, fine) in enumerate(batches):
        breaker.observe(failed, failed + fine, float(now))
        if not failed + fine:
            continue
        records += [1] * failed + [0] * fine
        ends.append(failed + fine)
        # Whole batches, as few as make up the last hundred records.
        taken = 0
        for size in reversed(ends):
            if taken >= SHARE.last:
                break
            taken += size
        last = records[-taken:]
        too_many = len(last) >= SHARE.least and sum(last) > SHARE.share * len(last)
        assert (breaker.state == "open") is too_many
        if too_many:
            return
