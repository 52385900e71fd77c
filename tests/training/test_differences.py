import json

import pytest

from metaseg_monai.training.checkpoints import differences


def schema(*fields):
    return json.dumps(
        {"fields": [{"name": name, "values": list(values)} for name, values in fields]}
    )


def test_equal_settings_have_none():
    assert differences({"a": 1, "b": [1, 2]}, {"b": [1, 2], "a": 1.0}) == []


@pytest.mark.parametrize(
    ("stored", "current", "line"),
    [
        ({"epochs": 100}, {"epochs": 50}, "epochs: 100 in the checkpoint, 50 now"),
        ({"seed": 1}, {}, "seed: 1 in the checkpoint, none now"),
        ({}, {"seed": None}, "seed: none in the checkpoint, None now"),
        ({"a": {"b": [1]}}, {"a": {"b": [2]}}, "a.b: [1] in the checkpoint, [2] now"),
        ({"a": 1}, {"a": True}, "a: 1 in the checkpoint, True now"),
    ],
)
def test_each_difference_is_named(stored, current, line):
    assert differences(stored, current) == [line]


def test_schemas_are_compared_by_field():
    stored = {"schema": schema(("task", ["disc"]), ("organ", ["liver"]))}
    current = {"schema": schema(("task", ["disc", "ring"]), ("organ", ["liver"]))}
    assert differences(stored, current) == [
        "schema.fields.task.values: ['disc'] in the checkpoint, ['disc', 'ring'] now"
    ]


def test_the_order_of_fields_counts():
    stored = {"schema": schema(("task", ["disc"]), ("organ", ["liver"]))}
    current = {"schema": schema(("organ", ["liver"]), ("task", ["disc"]))}
    assert differences(stored, current) == [
        "schema.fields: order ['task', 'organ'] is now ['organ', 'task']"
    ]


def test_long_values_are_shortened():
    (line,) = differences({"a": "x" * 500}, {"a": "y" * 500})
    assert len(line) < 220
