import pickle

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.transforms import Compose
from monai.transforms.transform import Randomizable

from metaseg_monai.errors import ConfigError, MetadataError
from metaseg_monai.metadata import Categorical, Continuous, MetadataSchema, MetadataWarning
from metaseg_monai.transforms.metadata import DropMetadatad, EncodeMetadatad

KNOWN = {"provenance": "acquisition", "availability": "acquisition"}


def schema(task="unknown", size="unknown"):
    return MetadataSchema(
        [
            Categorical(name="task", values=("disc", "ring"), missing=task, **KNOWN),
            Continuous(name="size", unit="mm", range=(0, 100), missing=size, **KNOWN),
        ]
    )


ITEM = {"case": "img_7", "metadata": {"task": "ring", "size": 25}}


def test_encode_adds_meta_and_keeps_the_item():
    encoded = EncodeMetadatad(schema())(ITEM)
    assert encoded["meta"].dtype == torch.float32
    assert encoded["meta"].tolist() == [0, 1, 0, 0.25, 0]
    assert set(ITEM) == {"case", "metadata"}
    assert encoded["metadata"] == ITEM["metadata"]


@pytest.mark.parametrize("variant", ["none", "se"])
def test_networks_that_read_no_metadata_get_none(variant):
    assert EncodeMetadatad(schema(task="error"), variant)({"case": "a"}) == {"case": "a"}
    assert DropMetadatad(schema(task="error"), 0.5, variant)({"case": "a"}) == {"case": "a"}
    with pytest.raises(ConfigError, match="got 'smee'; did you mean 'sme'"):
        EncodeMetadatad(schema(), "smee")


def test_dummy_is_zeros_and_stays_so():
    item = EncodeMetadatad(schema(), "me-dummy")(ITEM)
    assert item["meta"].dtype == torch.float32
    assert item["meta"].tolist() == [0] * 5
    assert DropMetadatad(schema(), 1.0, "me-dummy")(item)["meta"].tolist() == [0] * 5


@pytest.mark.parametrize(("variant", "value"), [("sme", 1), ("sme-dummy", 0)])
def test_the_vector_of_a_test_mode_is_left_alone_but_for_a_dummy(variant, value):
    item = {**ITEM, "mode": "ones", "meta": np.ones(5, dtype=np.float32)}
    assert EncodeMetadatad(schema(), variant)(item)["meta"].tolist() == [value] * 5


def test_fields_that_an_item_does_not_name_may_have_a_default():
    encode = EncodeMetadatad(schema(), default={"task": "ring", "size": 50, "threshold": 0.3})
    assert encode({"image": "a.png"})["meta"].tolist() == [0, 1, 0, 0.5, 0]
    assert encode({"metadata": {"task": "disc"}})["meta"].tolist() == [1, 0, 0, 0.5, 0]
    assert encode({"metadata": {"task": "disc", "size": ""}})["meta"].tolist() == [1, 0, 0, 0, 1]
    other = {"tusk": "unknown", "size": 50}  # a field of another schema that says nothing
    assert EncodeMetadatad(schema(), default=other)({"image": "a"})["meta"].tolist()[3] == 0.5
    with pytest.raises(ConfigError, match="names 'tusk'; expected fields of the schema"):
        EncodeMetadatad(schema(), default={"tusk": "ring"})
    with pytest.raises(MetadataError, match="use one of these names"):
        EncodeMetadatad(schema(), default={"task": "rign"})({"image": "a.png"})


def test_a_network_that_never_saw_unknown_is_not_given_it():
    encode = EncodeMetadatad(schema(), unknown_trained=False)
    assert encode(ITEM)["meta"].tolist() == [0, 1, 0, 0.25, 0]
    with pytest.raises(MetadataError, match="no value of size, and this network was trained"):
        encode({"case": "a", "metadata": {"task": "ring", "size": ""}})


def test_the_normal_mode_encodes():
    assert EncodeMetadatad(schema())({**ITEM, "mode": "normal"})["meta"].tolist()[1] == 1


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ({"case": "img_7"}, r"'img_7' \(mode normal\): expected raw metadata under 'metadata'"),
        (
            {**ITEM, "metadata": {"task": "rign"}},
            "case 'img_7', field 'task'.*use one of these names",
        ),
        ({**ITEM, "mode": "ones", "meta": np.ones(4)}, r"mode ones\): .*\(5,\), got shape \(4,\)"),
        ({**ITEM, "mode": "ones", "meta": np.full(5, np.nan)}, "expected a finite meta"),
        ({**ITEM, "mode": "ones"}, "expected an encoded 'meta'"),
        ({**ITEM, "meta": np.ones(5)}, "expected no 'meta'"),
    ],
)
def test_encode_refuses(item, reason):
    with pytest.raises(MetadataError, match=reason):
        EncodeMetadatad(schema())(item)


def test_planes_of_one_scan_say_one_thing():
    encode = EncodeMetadatad(schema().with_policy("flag"))
    raw = {"task": "Disk", "size": 140}
    item = {"volume": "p7", "metadata": raw}
    planes = [{**item, "case": f"p7_{plane:04d}", "plane": plane} for plane in range(3)]
    with pytest.warns(MetadataWarning) as heard:
        list(map(encode, planes))
    told = {str(one.message) for one in heard}
    assert len(told) == 2  # a line for each field, which the command line tells once
    assert all(one.startswith("case 'p7', field") for one in told)


def test_a_batch_keeps_each_case_with_its_metadata():
    items = [{**ITEM, "metadata": {"task": task}} for task in ("disc", "ring", None)]
    chain = pickle.loads(pickle.dumps(Compose([EncodeMetadatad(schema())])))
    (batch,) = DataLoader(Dataset([dict(i) for i in items], chain), batch_size=3)
    assert batch["meta"][:, :3].tolist() == torch.eye(3).tolist()


META = torch.tensor([0, 1, 0, 0.25, 0])


def test_dropped_fields_become_unknown():
    assert DropMetadatad(schema(), 1.0)({"meta": META})["meta"].tolist() == [0, 0, 1, 0, 1]
    assert DropMetadatad(schema(), {"size": 1})({"meta": META})["meta"].tolist() == [0, 1, 0, 0, 1]
    assert DropMetadatad(schema(), 0.0)({"meta": META})["meta"].tolist() == META.tolist()


def test_the_given_vector_is_not_touched():
    given = META.clone()
    DropMetadatad(schema(), 1.0)({"meta": given})
    assert given.tolist() == META.tolist()


def test_each_field_is_dropped_at_its_own_rate():
    drop = DropMetadatad(schema(), {"task": 0.2, "size": 0.7}).set_random_state(seed=0)
    metas = torch.stack([drop({"meta": META})["meta"] for _ in range(2000)])
    dropped = metas[:, [2, 4]]
    together = 0.2 + 0.8 * 0.14  # as often as the rarest, and where each is dropped by itself
    assert dropped.mean(0).tolist() == pytest.approx([0.36, 0.76], abs=0.04)
    assert (dropped.prod(1)).mean().item() == pytest.approx(together, abs=0.03)


def test_a_single_field_is_dropped_at_its_rate_and_not_twice():
    single = MetadataSchema([schema().field("size")])
    drop = DropMetadatad(single, 0.3).set_random_state(seed=0)
    rate = np.mean([drop({"meta": torch.tensor([0.5, 0])})["meta"][1] for _ in range(2000)])
    assert rate == pytest.approx(0.3, abs=0.03)


def draws(drop, count=40):
    return [drop({"meta": META})["meta"].tolist() for _ in range(count)]


def test_draws_replay_from_the_seed_alone():
    drop = DropMetadatad(schema(), 0.5)
    assert isinstance(drop, Randomizable)
    first = draws(drop.set_random_state(seed=3))
    np.random.seed(1)  # noqa: NPY002 - the global state is what must not matter
    torch.manual_seed(1)
    assert draws(drop.set_random_state(seed=3)) == first
    assert draws(drop.set_random_state(seed=4)) != first
    assert draws(pickle.loads(pickle.dumps(drop.set_random_state(seed=3)))) == first


def test_the_chain_seeds_it():
    chain = Compose([EncodeMetadatad(schema()), DropMetadatad(schema(), 0.5)])
    runs = []
    for seed in (5, 5, 6):
        chain.set_random_state(seed=seed)
        runs.append([chain(ITEM)["meta"].tolist() for _ in range(30)])
    assert runs[0] == runs[1] != runs[2]


def test_one_fields_probability_does_not_move_anothers_draws():
    def sizes(task):
        drop = DropMetadatad(schema(), {"task": task, "size": 0.5}).set_random_state(seed=0)
        drop.together = 0
        return [meta[4] for meta in draws(drop)]

    assert sizes(0.0) == sizes(0.9)


@pytest.mark.parametrize(
    ("task", "probability", "reason"),
    [
        ("error", {"task": 0.1}, "'task' has no code for a missing value"),
        ("unknown", {"taks": 0.1}, "'taks' is no field.*did you mean 'task'"),
        ("unknown", 1.1, "'task': expected 0 to 1, got 1.1"),
        ("unknown", {"size": -0.1}, "'size': expected 0 to 1, got -0.1"),
        ("unknown", float("nan"), "expected 0 to 1, got nan"),
        ("unknown", {"size": "0.1"}, "'size': expected 0 to 1, got '0.1'"),
    ],
)
def test_drop_refuses_at_construction(task, probability, reason):
    with pytest.raises(MetadataError, match=reason):
        DropMetadatad(schema(task=task), probability)


@pytest.mark.parametrize("probability", [1.0, {"size": 1.0, "task": 0.0}])
def test_error_fields_may_stay_beside_dropped_ones(probability):
    drop = DropMetadatad(schema(task="error"), probability)
    assert drop({"meta": torch.tensor([0, 1, 0.25, 0])})["meta"].tolist() == [0, 1, 0, 1]


def test_drop_needs_an_encoded_vector():
    with pytest.raises(MetadataError, match=r"'img_7': expected 'meta'.*EncodeMetadatad before"):
        DropMetadatad(schema(), 0.5)(ITEM)
    with pytest.raises(MetadataError, match=r"shape \(5,\), got shape \(3,\)"):
        DropMetadatad(schema(), 0.5)({"meta": torch.zeros(3)})


def test_of_a_range_training_draws_values_all_over_it():
    drop = DropMetadatad(
        MetadataSchema([Continuous(name="size", unit="mm", range=(0, 100), **KNOWN)]),
        probability=0.0,
    ).set_random_state(0)
    ends = torch.tensor([[0.2], [0.6]])
    drawn = torch.stack([drop({"meta": ends})["meta"] for _ in range(400)])
    assert drawn.shape == (400, 1)
    assert 0.2 <= drawn.min() < 0.22
    assert 0.58 < drawn.max() <= 0.6
    assert 0.38 < drawn.mean() < 0.42
