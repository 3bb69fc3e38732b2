from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from bundle import Manifest
from bundle.schema import PATH, render
from bundle.store import encode_manifest
from tests.tiny import tiny_graph, tiny_manifest


def document(members: int = 3) -> dict[str, Any]:
    return tiny_manifest([tiny_graph(index) for index in range(members)]).model_dump(mode="json")


def refuse(changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Manifest.model_validate(changed)


def test_round_trip_is_exact():
    manifest = tiny_manifest([tiny_graph(0), tiny_graph(1)])
    assert Manifest.model_validate_json(encode_manifest(manifest)) == manifest


def test_committed_schema_is_the_models_schema():
    assert PATH.read_text() == render(), "run `make schema` and commit the result"


def test_schema_accepts_a_manifest_and_refuses_an_unknown_key():
    validator = jsonschema.Draft202012Validator(jsonschema.Draft202012Validator.META_SCHEMA)
    schema = json.loads(render())
    validator.validate(schema)
    jsonschema.validate(document(), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document(), "colour": "red"}, schema)


def test_connection_must_come_from_an_earlier_member():
    changed = document()
    changed["members"][1]["connections"][0]["from_member"] = 1
    refuse(changed, "member 1: connection 'previous' comes from member 1, which does not run before it")


def test_connection_must_name_an_output():
    changed = document()
    changed["members"][2]["connections"][0]["from_output"] = "absent"
    refuse(changed, "member 1 has no output 'absent'")


def test_connection_shape_must_match_its_source():
    changed = document()
    changed["members"][1]["connections"][0]["shape"] = [7]
    refuse(changed, r"expects float32\[7\] but member 0 gives float32\[5\]")


def test_connection_must_not_shadow_the_input():
    changed = document()
    changed["members"][1]["connections"][0]["input"] = "x"
    refuse(changed, "has the name of the bundle's input")


def test_only_the_last_member_replaces():
    changed = document()
    changed["members"][0]["combine"] = "replace"
    refuse(changed, "only the last member may `replace`")


def test_a_stage_that_replaces_the_answer_is_no_running_average():
    changed = document()
    assert [prefix.members for prefix in Manifest.model_validate(changed).averaged] == [1, 2, 3]
    changed["members"][-1]["combine"] = "replace"
    assert [prefix.members for prefix in Manifest.model_validate(changed).averaged] == [1, 2]


@pytest.mark.parametrize("file", ["../escape.onnx", "a/b.onnx", "", "..", "/etc/passwd"])
def test_member_file_stays_in_the_folder(file: str):
    changed = document()
    changed["members"][0]["file"] = file
    refuse(changed, "must be a plain file name")


def test_members_are_numbered_in_order():
    changed = document()
    changed["members"][1]["index"] = 2
    refuse(changed, "entry 1 has index 2")


def test_every_prefix_is_described():
    changed = document()
    changed["prefixes"].pop()
    refuse(changed, "prefixes: must list")


def test_logits_have_a_column_a_class():
    changed = document()
    changed["classes"].append("ultraviolet")
    refuse(changed, "for 4 classes")


@pytest.mark.parametrize("name", ["../up", "", "a b", ".hidden", "x" * 65])
def test_name_is_safe_as_a_folder(name: str):
    refuse({**document(), "name": name}, "name")


def test_not_a_number_is_refused():
    changed = document()
    changed["prefixes"][0]["nll"] = float("nan")
    refuse(changed, "nll")


def calibrated_document() -> dict[str, Any]:
    changed = document()
    for prefix in changed["prefixes"]:
        depths = len(changed["members"]) - prefix["members"] + 1
        prefix["outlook"] = [
            {"up_to": 0.5, "share": 0.4, "accuracy": [0.5] * depths},
            {"up_to": 1, "share": 0.6, "accuracy": [0.9] * depths},
        ]
    rule = {"confidence": 0.9, "method": "learn_then_test", "flops_fraction": 0.5, "accuracy": 0.9, "disagreement": 0}
    changed["exits"] = [
        {"risk": 0.01, "thresholds": [None, 0.99], **rule},
        {"risk": 0.05, "thresholds": [0.9, 0.8], **rule},
    ]
    return changed


def test_calibration_is_read_back():
    manifest = Manifest.model_validate(calibrated_document())
    assert manifest.prefixes[0].outlook[1].accuracy == (0.9, 0.9, 0.9)
    assert manifest.exits[0].thresholds == (None, 0.99)


def test_bands_of_an_outlook_must_ascend_to_1():
    changed = calibrated_document()
    changed["prefixes"][1]["outlook"][1]["up_to"] = 0.4
    refuse(changed, "prefix 2: the bands of its outlook must ascend and end at 1")


def test_bands_of_an_outlook_must_tell_of_every_depth():
    changed = calibrated_document()
    changed["prefixes"][1]["outlook"][1]["accuracy"] = [0.9]
    refuse(changed, "prefix 2: each band of its outlook needs an accuracy for every depth")


def test_an_outlook_must_not_fall():
    changed = calibrated_document()
    changed["prefixes"][0]["outlook"][1]["accuracy"] = [0.9, 0.8, 0.9]
    refuse(changed, "must not fall with more members")


def test_exit_rules_must_ascend_in_risk():
    changed = calibrated_document()
    changed["exits"].reverse()
    refuse(changed, "exits: must be listed by ascending risk")


def test_exit_rule_needs_a_threshold_for_each_prefix_but_the_last():
    changed = calibrated_document()
    changed["exits"][0]["thresholds"] = [0.9]
    refuse(changed, "exits: each rule needs 2 thresholds")
