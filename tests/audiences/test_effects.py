"""The law of effects: no event changes what a rule says of a person but those that are said to."""

from dataclasses import replace

from hypothesis import given
from hypothesis import settings as hypothesis_settings

from audiences.segments import effects, grammar
from audiences.segments.judge import ANY_EVENT, judge
from tests.audiences import strategies
from tests.audiences.strategies import AS_OF


@hypothesis_settings(max_examples=400, deadline=None)
@given(tree=strategies.trees(), people=strategies.people(max_size=10), more=strategies.histories(max_size=4))
def test_only_events_that_are_said_to_take_people_out_or_bring_them_in(tree, people, more):
    said = effects.of(tree)
    for person in people:
        for event in more:
            before = judge(tree, person, AS_OF)
            after = judge(tree, replace(person, events=(*person.events, event)), AS_OF)
            if before and not after:
                assert said.takes_out & {event.name, ANY_EVENT}
            if after and not before:
                assert said.brings_in & {event.name, ANY_EVENT}


def test_what_cannot_change_anything_is_left_out():
    viewed = {"event": "viewed", "count": {"at_least": 1}}
    rule = grammar.parse({"all": [viewed, {"event": "bought", "count": {"exactly": 0}, "within": "3d"}]})
    assert effects.of(rule) == effects.Effects(frozenset({"viewed"}), frozenset({"bought"}))
    assert effects.of(grammar.parse({"not": viewed})).takes_out == {"viewed"}
    assert effects.of(grammar.parse({"attribute": "plan", "op": "is", "value": "pro"})) == effects.Effects()
