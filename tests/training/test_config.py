"""Settings: typed parsing, ranges, and one sentence for each kind of mistake."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from training import Config
from training.errors import BadConfig
from training.recipes import RECIPES

DIGITS = RECIPES["digits"].config


def test_every_type_is_parsed():
    changed = DIGITS.override(["gamma=0.5", "rounds=3", "member_widths=3,7,9", "connection=residual", "name=mine"])
    assert (changed.gamma, changed.rounds, changed.member_widths) == (0.5, 3, (3, 7, 9))
    assert (changed.connection, changed.name) == ("residual", "mine")
    assert changed.epochs == DIGITS.epochs
    assert [DIGITS.override([f"with_teacher={word}"]).with_teacher for word in ("true", "false")] == [True, False]


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("gama=1", "There is no setting 'gama'; there are: name, seed, device,"),
        ("gamma", "--set 'gamma' is not of the form key=value."),
        ("gamma=big", "gamma='big' is not of type float."),
        ("rounds=2.5", "rounds='2.5' is not of type int."),
        ("member_widths=4,x", "member_widths='4,x' is not integers separated by commas."),
        ("member_widths=4,0", "must be one or more positive integers."),
        ("with_teacher=yes", "with_teacher='yes' is neither true nor false."),
        ("barrier=steep", "barrier='steep' is none of: literal, weighted, saturating."),
        ("label_weight=-1", "label_weight=-1.0 must be at least 0."),
        ("refine_epochs=-1", "refine_epochs=-1 must be at least 0."),
        ("refine_learning_rate=0", "refine_learning_rate=0.0 must be positive and finite."),
        ("connection=tree", "connection='tree' is none of: none, residual, dense, lstm, gru."),
        ("rounds=0", "rounds=0 must be at least 1."),
        ("gamma=0", "gamma=0.0 must be positive and finite."),
        ("gamma=nan", "gamma=nan must be positive and finite."),
        ("eta=inf", "eta=inf must be positive and finite."),
        ("weight_decay=nan", "weight_decay=nan must be at least 0."),
        ("exit_confidence=1", "exit_confidence=1.0 must be below 1."),
        ("exit_confidence=0", "exit_confidence=0.0 must be positive and finite."),
        ("exit_risks=0.05,0.01", "exit_risks=(0.05, 0.01) must be one or more ascending numbers between 0 and 1."),
        ("exit_risks=0.5,1", "must be one or more ascending numbers between 0 and 1."),
        ("exit_risks=nan", "must be one or more ascending numbers between 0 and 1."),
        ("exit_risks=few", "exit_risks='few' is not numbers separated by commas."),
        ("bound_factor=0.5", "bound_factor=0.5 must be at least 1."),
        ("first_expansion=2", "first_expansion=2 must be below expansions=2"),
        ("name=../up", "name='../up' cannot be a bundle's name"),
    ],
)
def test_a_mistake_is_one_sentence(assignment: str, sentence: str):
    with pytest.raises(BadConfig) as caught:
        DIGITS.override([assignment])
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"connection": "Dense"}, "connection='Dense' is none of: none, residual, dense, lstm, gru."),
        ({"on_failure": "Best"}, "on_failure='Best' is none of: stop, best."),
        ({"task_loss": "running-average"}, "task_loss='running-average' is none of: member, running_average."),
        ({"barrier": ["literal"]}, "barrier=['literal'] is none of: literal, weighted, saturating."),
        ({"eta_rule": None}, "eta_rule=None is none of: literal, scaled, theorem."),
        ({"augment": "flip"}, "augment='flip' is none of: none, "),
        ({"bound_factor": math.inf}, "bound_factor=inf must be finite."),
        ({"label_weight": math.inf}, "label_weight=inf must be finite."),
        ({"gamma": 0}, "gamma=0 must be positive and finite."),
        ({"epochs": 2.5}, "epochs=2.5 is not of type int."),
        ({"rounds": True}, "rounds=True is not of type int."),
        ({"with_teacher": "false"}, "with_teacher='false' is not of type bool."),
        ({"exit_risks": 0.1}, "exit_risks=0.1 is not numbers separated by commas."),
        ({"exit_risks": [0.3, 0.1]}, "exit_risks=(0.3, 0.1) must be one or more ascending numbers between 0 and 1."),
        ({"name": 3}, "name=3 cannot be a bundle's name"),
    ],
)
def test_settings_made_in_python_are_checked_as_those_of_a_command(changes: dict, sentence: str):
    with pytest.raises(BadConfig) as caught:
        Config(**{"name": "mine", **changes})
    assert sentence in str(caught.value)


def test_a_list_is_as_good_as_a_tuple():
    assert Config(name="mine", exit_risks=[0.1, 0.3]) == Config(name="mine", exit_risks=(0.1, 0.3))


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_named_and_recorded_as_json(name: str):
    recipe = RECIPES[name]
    assert recipe.name == recipe.config.name == name
    assert recipe.summary
    record = json.loads(json.dumps(recipe.config.record()))
    assert set(record) == {field.name for field in dataclasses.fields(recipe.config)}


def test_a_record_does_not_tell_where_a_file_lies():
    assert RECIPES["npz"].config.override(["data=/home/somebody/points.npz"]).record()["data"] == "points.npz"


def test_settings_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config(name="x").rounds = 2
