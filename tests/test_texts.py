"""What is said of the four texts: one source for their settings, commands that are real."""

import json
import re
import shlex
from collections import Counter
from pathlib import Path

import pytest

from metaseg_monai.bundle.overrides import check_overrides, load_config
from metaseg_monai.bundle.run import configuration_file, resolve_bundle
from metaseg_monai.cli.commands import COMMANDS, check_flags, find, load
from metaseg_monai.networks.variants import ALL_VARIANTS
from metaseg_monai.reporting.published import load_references, verdict
from metaseg_monai.simulate.cells.plan import make_plan
from metaseg_monai.study.design import EXPERTS

ROOT = Path(__file__).resolve().parents[1]
REFERENCES = json.loads((ROOT / "docs/references.json").read_text(encoding="utf-8"))
COVERAGE = (ROOT / "docs/coverage.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "docs/results.md").read_text(encoding="utf-8")
PUBLISHED = load_references(ROOT / "docs/references.json")
FIGURE = re.compile(r"(?<![\w.])[+-]?\d+\.\d+(?:e-\d+)?")
OF_SHAPES = "synthetic_shapes_segmentation"  # whose models the page calls runs/sme


def read(file):
    return json.loads(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("text", REFERENCES["settings"], ids=lambda text: text["id"])
def test_sizes_are_those_of_the_texts(text):
    files = sorted(ROOT.glob(f"bundles/*/configs/{text['configuration']}.json"))
    assert len(files) >= 4
    for file in files:
        own = text.get("exceptions", {}).get(file.parents[1].name, {})
        wanted = {**text["values"], **own}
        assert {name: read(file).get(name) for name in wanted} == wanted, file
        assert read(file)["network_def#channels"] == 64
        assert read(file)["network_def#levels"] == 5


@pytest.mark.parametrize("images", REFERENCES["images"], ids=lambda images: images["recipe"])
def test_full_sizes_have_the_counts_of_the_texts(images):
    counts = {split: images[split] for split in ("train", "val", "test")}
    if images["recipe"] == "synthetic-shapes":
        simulated = read(ROOT / f"bundles/{OF_SHAPES}/configs/simulate.json")
        assert {split: simulated[split] for split in counts} == counts
        return
    plans = make_plan(images["recipe"], dict.fromkeys(counts), 0)
    assert Counter(plan.split for plan in plans) == counts


def test_pages_name_the_network_that_the_texts_name():
    told = 0
    for page in sorted(ROOT.glob("bundles/*/docs/README.md")):
        text = page.read_text(encoding="utf-8")
        for source, networks in re.findall(
            r"\(network of the (paper|thesis): ([^);]+)", " ".join(text.split())
        ):
            known = {
                table["network"]
                for table in REFERENCES["tables"]
                if table["bundle"] == page.parents[1].name and table["source"].startswith(source)
            }
            stated = known - {"not stated"} or known
            assert set(networks.split(", ")) == stated, page
            told += 1
    assert told == 8


def test_the_film_of_the_texts_is_that_of_ivadomed():
    for file in [*ROOT.glob("bundles/*/studies/*.json"), *ROOT.glob("docs/examples/*/study*.json")]:
        references = read(file).get("references", {})
        for renamed in references.values() if isinstance(references, dict) else ():
            assert "film-ivadomed" not in renamed, file
    for table in REFERENCES["tables"]:
        assert "film" not in table["rows"], table["id"]


def commands():
    """The commands of the page, as words."""
    spans = [shlex.split(span) for span in re.findall(r"`([^`]+)`", COVERAGE)]
    return [words for words in spans if len(words) > 1 and words[0].replace("_", "-") in COMMANDS]


def test_the_readme_leads_to_the_page():
    assert "(docs/coverage.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_page_tells_commands_of_every_bundle():
    told = COVERAGE.replace("\n", " ")
    assert len(commands()) > 30
    for bundle in ROOT.glob("bundles/*/configs"):
        assert bundle.parent.name in told


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_a_command_of_the_page_is_real(words, monkeypatch):
    monkeypatch.chdir(ROOT)
    target, names, rest = find(words, COMMANDS)
    check_flags(load(target), rest, " ".join(names))
    values = [word for word in rest if not word.startswith("--")]
    flags = {word[2:]: rest[place + 1] for place, word in enumerate(rest) if word.startswith("--")}
    known = {"output", "output_dir", "source", "configuration", "modes", "seeds", "variants"}
    settings = {name: text for name, text in flags.items() if name not in known}
    if names == ["study"]:
        assert Path(values[0]).is_file() or resolve_bundle(values[0])
        variants = flags.get("variants", "se").split(",")
        assert set(variants) <= {*ALL_VARIANTS, *EXPERTS}
    elif names[0] in ("train", "evaluate", "predict", "explain"):
        stages = {"train": ["train"], "predict": ["inference"]}.get(names[0], ["train", "evaluate"])
        bundle = resolve_bundle(values[0] if names[0] == "train" else OF_SHAPES)
        further = [name for name in flags.get("configuration", "").split(",") if name]
        files = [
            configuration_file(bundle, name) for name in (*(f"{s}.json" for s in stages), *further)
        ]
        check_overrides(load_config(files), settings)


def beside():
    """Rows of the page's last table: text, compared, theirs, ours, verdict, where."""
    table = COVERAGE.partition("## Their figures beside ours")[2]
    lines = [line for line in table.splitlines() if line.startswith("| ")][2:]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]


def sections():
    """Sections of the results, by the anchor of their heading."""
    found = {}
    for part in re.split(r"^#+ (?=.)", RESULTS, flags=re.MULTILINE):
        heading, _, text = part.partition("\n")
        found[re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")] = text
    return found


def test_every_published_table_stands_beside_ours():
    named = set(re.findall(r"`([^`]+)`", " ".join(row[0] for row in beside())))
    assert named == set(PUBLISHED)


@pytest.mark.parametrize("row", beside(), ids=lambda row: f"{row[0]}, {row[1]}")
def test_figures_beside_ours_are_those_of_their_sources(row):
    text, _, theirs, ours, said, where = row
    ids = re.findall(r"`([^`]+)`", text)
    frames = [PUBLISHED[id].frame() for id in ids]
    words = " ".join(str(frame.select_dtypes(exclude="number").to_numpy()) for frame in frames)
    lines = [
        line
        for frame in frames
        for table in (frame.select_dtypes("number"), frame.select_dtypes("number").T)
        for line in table.to_numpy()
    ]
    printed = {number for line in lines for number in line} | set(map(float, FIGURE.findall(words)))
    differences = {round(one - two, 4) for line in lines for one in line for two in line}
    for figure in FIGURE.findall(theirs):
        assert float(figure) in (differences if figure[0] in "+-" else printed), figure
    number = FIGURE.pattern
    for difference, one, two in re.findall(
        rf"({number}) \((?:\w+, )?({number}) - ({number})\)", theirs
    ):
        assert float(difference) == round(float(one) - float(two), 4)
    if said == "not run yet":
        assert (ours, where) == ("", "")
        return
    assert said in ("agrees", "disagrees", "cannot tell")
    anchors = re.findall(r"\(results\.md#([^)]+)\)", where)
    assert anchors
    measured = {figure for anchor in anchors for figure in FIGURE.findall(sections()[anchor])}
    assert [figure for figure in FIGURE.findall(ours) if figure not in measured] == []
    signed = [float(figure) for figure in FIGURE.findall(theirs) if figure[0] in "+-"]
    intervals = re.findall(rf"\[({number}), ({number})\]", ours)
    if len(signed) == 1 and intervals and said != "cannot tell":
        assert verdict(signed[0], *map(float, intervals[0])) == said
