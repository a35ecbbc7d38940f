"""Every order of a few calls, on the real scripts: no promise is broken, and each would be without its protection."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.model.calls import SOURCES
from tests.model.explore import Model, Search
from tests.model.models import MODELS
from tests.model.mutations import MUTATIONS, Mutation
from tests.model.promises import PROMISES

pytestmark = pytest.mark.slow

STATES = 800  # of each model; `python -m tests.model` goes on from there
ENOUGH = 4000  # states until a mutation is noticed; most take a hundred


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_no_order_of_calls_breaks_a_promise(model: Model) -> None:
    result = Search(model).run(STATES)
    assert (result.why, result.trace) == ("", [])
    assert result.complete or result.states == STATES


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_protection_that_is_taken_away_is_missed(mutation: Mutation) -> None:
    result = Search(MODELS[mutation.model], mutation).run(ENOUGH)
    assert result.broken == mutation.breaks, result


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_changes_the_scripts_that_it_names(mutation: Mutation) -> None:
    assert sum(mutation(source) != source for source in SOURCES.values()) == len(mutation.of)


def test_a_mutation_whose_text_is_gone_says_so() -> None:
    mutation = replace(MUTATIONS[0], text="no such text")
    with pytest.raises(LookupError, match="stands 0 times"):
        mutation(*mutation.of)


def test_each_promise_is_one_that_a_mutation_breaks() -> None:
    assert {mutation.breaks for mutation in MUTATIONS} == set(PROMISES)
