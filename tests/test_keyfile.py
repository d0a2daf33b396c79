"""Settings in files: YAML, JSON and the config.txt of a run, and what is said of their mistakes."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from commands import run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loops import loop_over

from equipoise.cli.options import raised_here
from equipoise.config import build, to_text
from equipoise.core.nesting import DEEPEST, LONGEST
from equipoise.core.schedules import Linear
from equipoise.data import Digits, Images
from equipoise.losses import R1, R2, Hinge, LeastSquares
from equipoise.models import TinyDigitsDiscriminator, TinyDigitsGenerator
from equipoise.recipes import load
from equipoise.recipes.dcgan import dcgan_digits
from equipoise.recipes.quickstart import quickstart
from equipoise.recipes.san import san_digits
from equipoise.recipes.sngan import sngan_digits
from equipoise.rules import Adam, RMSprop


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def written(text: str, name: str = "mine.yaml") -> str:
    Path(name).write_text(text)
    return name


def refusal(text: str, name: str = "mine.yaml") -> str:
    with pytest.raises(ValueError, match=re.escape(name)) as caught:
        load(written(text, name))
    assert raised_here(caught.value)
    return str(caught.value)


EVERYTHING = """\
# A comment.
recipe: sngan_digits
loss: LeastSquares(a=-1, b=1)
terms: [R1(gamma=5, every=4), R2]   # a comma in a call is none of the list
g_optim: {lr: 1e-4}
d_optim:
  RMSprop: {lr: {Linear: {start: 1e-3, end: 0, kimg: 5}}}
ema.halflife_kimg: 5
head:
  init_std: 0.5
data: {path: 'photos', resolution: 64}
d_normalizer.skip:
  - body.0
  - head.*
batch_size: 0x20
seed: 1_000
"""
SAME = replace(
    sngan_digits(),
    loss=LeastSquares(a=-1.0, b=1.0),
    terms=(R1(gamma=5.0, every=4), R2()),
    g_optim=replace(sngan_digits().g_optim, lr=1e-4),
    d_optim=RMSprop(lr=Linear(1e-3, 0.0, 5.0)),
    ema=replace(sngan_digits().ema, halflife_kimg=5.0),
    head=replace(sngan_digits().head, init_std=0.5),
    data=Images("photos", resolution=64),
    d_normalizer=replace(sngan_digits().d_normalizer, skip=("body.0", "head.*")),
    batch_size=32,
    seed=1000,
)


@loop_over("name", ["mine.yaml", "mine.yml", "MINE.YAML"])
def test_a_yaml_file_is_a_recipe(name):
    assert load(written(EVERYTHING, name))[0] == SAME


def test_a_json_file_is_a_recipe():
    settings = {
        "recipe": "sngan_digits",
        "loss": "LeastSquares(a=-1, b=1)",
        "terms": ["R1(gamma=5, every=4)", {"R2": {}}],
        "g_optim": {"lr": 1e-4},
        "d_optim": {"RMSprop": {"lr": {"Linear": {"start": 1e-3, "end": 0, "kimg": 5}}}},
        "ema.halflife_kimg": 5,
        "head": {"init_std": 0.5},
        "data": {"path": "photos", "resolution": 64},
        "d_normalizer.skip": ["body.0", "head.*"],
        "batch_size": 32,
        "seed": 1000,
    }
    assert load(written(json.dumps(settings), "mine.json"))[0] == SAME
    assert load(written("\ufeff" + json.dumps(settings), "mine.json"))[0] == SAME  # as an editor of Windows saves it


def test_a_config_of_a_run_is_a_recipe():
    config = replace(san_digits(), batch_size=7)
    Path("a").mkdir()
    assert load(written(to_text(config), "a/config.txt"))[0] == config
    with pytest.raises(ValueError, match=r"there is no recipe 'a': it is a run, whose config is a/config\.txt"):
        load("a")


def test_a_file_without_a_recipe():
    text = "data: Digits\ngenerator: TinyDigitsGenerator\ndiscriminator: TinyDigitsDiscriminator\ng_optim: {lr: 1e-3}\n"
    config = load(written(text))[0]
    assert (config.data, config.generator, config.discriminator) == (
        Digits(),
        TinyDigitsGenerator(),
        TinyDigitsDiscriminator(),
    )
    assert config.g_optim == Adam(lr=1e-3)
    assert config.loss == type(config).__dataclass_fields__["loss"].default
    images = text.replace("data: Digits", "data: {path: photos, resolution: 28}")
    assert load(written(images))[0].data == Images("photos", resolution=28)
    assert refusal("loss: Hinge\n").splitlines() == [
        "mine.yaml: TrainConfig needs the field 'data': a DatasetConfig",
        "mine.yaml: TrainConfig needs the field 'generator': a GeneratorConfig",
        "mine.yaml: TrainConfig needs the field 'discriminator': a DiscriminatorConfig",
        "mine.yaml: give them, or a recipe that has them, such as recipe: quickstart",
    ]
    assert "TrainConfig.generator has no default, so 'width' cannot be set in it: give generator too" in refusal(
        "generator: {width: 4}\n"
    )


def test_build_is_override_of_the_defaults():
    whole = {name: getattr(quickstart(), name) for name in ("data", "generator", "discriminator")}
    assert build(whole | {"d_optim.lr": 1.0}) == build(whole | {"d_optim": Adam(lr=1.0)})


def test_a_file_over_a_file():
    written("recipe: quickstart\nloss: Hinge\n", "base.yaml")
    assert load(written("recipe: base.yaml\nseed: 5\n"))[0] == replace(quickstart(), loss=Hinge(), seed=5)
    assert refusal("recipe: mine.yaml\n") == "mine.yaml: its recipe is mine.yaml, whose own recipe is mine.yaml again"
    written("recipe: mine.yaml\n", "base.yaml")
    assert "whose own recipe is base.yaml again" in refusal("recipe: base.yaml\n", "mine.yaml").replace(
        "mine.yaml again", "base.yaml again"
    )


# ---- what YAML 1.1 would make of it -------------------------------------------------------------------------------


@loop_over(
    ("text", "message"),
    [
        ("head: {san: yes}", "line 2, 'head.san': Head.san takes true or false, got 'yes'; did you mean true?"),
        ("head.san: on", "Head.san takes true or false, got 'on'; did you mean true?"),
        ("head.san: No", "Head.san takes true or false, got 'No'; did you mean false?"),
        ("head.conditioning: no", "got 'no'"),
        ("seed: 010", "TrainConfig.seed takes a whole number of 0 or more, got '010'"),
        ("seed: 1:30", "TrainConfig.seed takes a whole number of 0 or more, got '1:30'"),
        ("seed: 2026-01-01", "TrainConfig.seed takes a whole number of 0 or more, got '2026-01-01'"),
        ("total_kimg: .inf", "TrainConfig.total_kimg takes a number above 0, got '.inf'"),
        ("loss:", "TrainConfig.loss takes a GANLoss, got None"),
        ("loss: Hinge\nloss: R1", "line 3: the key 'loss' is given twice, in line 2 first"),
        ("g_optim: {lr: 1, lr: 2}", "line 2: the key 'lr' is given twice, in line 2 first"),
        ("g_optim: {lr: 1}\ng_optim.lr: 2", "line 3, 'g_optim.lr': it is given twice"),
        ("g_optim: &a {lr: 1}\nd_optim: *a", "line 2: expected no anchors (&) and aliases (*)"),
        ("g_optim: {<<: {lr: 1}}", "line 2, 'g_optim.<<.lr': Adam has no field '<<'"),
        ("loss: !!python/name:os.system x", "line 2: expected no tags, got tag:yaml.org,2002:python/name:os.system"),
        ("loss: !Hinge", "line 2: expected no tags, got !Hinge"),
        (
            "g_optim:\n\tlr: 1",
            "line 3: found character '\\t' that cannot start any token. Indent with spaces, not with",
        ),
        ('data: "C:\\Users"', "Put a text with backslashes in single quotes, or in none"),
        ("loss: a: b", "line 2: mapping values are not allowed here. Put a text with such a sign in single quotes"),
        ("loss: [Hinge", "expected ',' or ']'"),
        ("loss: @x", "line 2: found character '@' that cannot start any token"),
        ("---\nloss: Hinge\n---\nloss: R1", "expected one document, and here another begins"),
        ("? [a]\n: 1", "line 2: expected a field, got a list, a mapping or nothing"),
        ("~: 1", "line 2: expected a field, got a list, a mapping or nothing"),
        (
            "g_optim: {betas: (0, 0.9)}",
            "cannot read '(0': expected a literal or Component(key=value, ...). A comma in [ ]",
        ),
        ("terms: [{gamma: 5}]", "expected a component in place of the fields 'gamma': give its name too"),
        ("terms: [{R1: 5}]", "expected the fields of R1, as in {R1: {field: 1}}"),
        ("terms: [R1(gama=5)]", "line 2, 'terms': R1 has no field 'gama'; did you mean 'gamma'?"),
        ("terms: [{R1: {gama: 5}}]", "line 2, 'terms': R1 has no field 'gama'; did you mean 'gamma'?"),
        (
            "terms: R1",
            "each item a Term, got R1(gamma=10.0, every=16); did you mean [R1(gamma=10.0, every=16)]?",
        ),
        ("loss: Hing()", "mine.yaml, line 2, 'loss': unknown component 'Hing'; did you mean 'Hinge'?"),
        ("los: Hinge", "mine.yaml, line 2, 'los': TrainConfig has no field 'los'; did you mean 'loss'?"),
        ("loss.: Hinge", "'loss.' is not a path"),
        (
            "seed: 1\nd_optim:\n  lr: fast",
            "mine.yaml, line 4, 'd_optim.lr': Adam.lr takes a number of 0 or more, or a sch",
        ),
        ("batch_size: 0\nseed: -1", "line 3, 'seed': TrainConfig.seed takes a whole number of 0 or more, got -1"),
        (
            "head.san: true\nloss: RelativisticPairing",
            "lines 2 and 3, 'head.san', 'loss': head.san=true has no direction",
        ),
        (
            "data: photoz",
            "line 2, 'data': TrainConfig.data: expected a data set or a path that exists, and 'photoz' is",
        ),
        ("data.resolution: 64", "line 2, 'data.resolution': Digits has no field 'resolution', which Images have"),
    ],
)
def test_mistakes_name_the_line_the_key_and_the_fix(text, message):
    assert message in refusal(f"recipe: dcgan_digits\n{text}\n")


@loop_over("text", ["", "# nothing\n", "{}", "~", "---\n", "- 1\n- 2\n", "[1]", "Hinge", "5"])
@loop_over("name", ["mine.yaml", "mine.json"])
def test_a_file_holds_fields(text, name):
    said = refusal(text, name)
    assert said.startswith(f"cannot read {name}: ")
    assert "expected fields and their values" in said or name.endswith("json")


@loop_over(
    ("text", "message"),
    [
        ('{"loss": "Hinge",}', "line 1 column 18"),
        ('{"loss": "Hinge", "loss": "R1"}', "the key 'loss' is given twice"),
        ('{"recipe": "quickstart", "loss": "Hing()"}', "mine.json, 'loss': unknown component 'Hing'"),
        (
            '{"recipe": "quickstart", "total_kimg": Infinity}',
            "'total_kimg': TrainConfig.total_kimg takes a finite number",
        ),
        ('{"recipe": "quickstart", "batch_size": "many"}', "TrainConfig.batch_size takes a whole number of 1 or more"),
        ('{"recipe": 5}', "mine.json: expected the name of a recipe"),
        ('{"recipe": "quickstrat"}', "there is no recipe 'quickstrat'; did you mean 'quickstart'?"),
    ],
)
def test_mistakes_in_json(text, message):
    Path("mine.json").write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        load("mine.json")


def test_what_is_no_text_or_no_file():
    with pytest.raises(ValueError, match=r"there is no file none\.yaml"):
        load("none.yaml")
    with pytest.raises(ValueError, match=r"there is no file none/config\.txt"):
        load("none/config.txt")
    Path("mine.yaml").write_bytes(b"loss: \xff\n")
    with pytest.raises(ValueError, match=r"cannot read mine\.yaml: .*utf-8"):
        load("mine.yaml")
    Path("mine.txt").write_text("Hinge")
    with pytest.raises(ValueError, match=r"cannot read the config in mine\.txt: expected TrainConfig"):
        load("mine.txt")


@loop_over(
    "text",
    [
        "[" * 100_000,
        "- " * 40_000,
        "? " * 40_000,
        "{a: " * 90 + "- " * 20_000,
        "a\n" * 40_000,
        "- a\n" * 20_000,
        "[" + "a," * 40_000 + "]",
        '"' + "a " * 49_000,
        "a" * (LONGEST + 1),
        "x: " + "[" * (DEEPEST - 1) + "]" * (DEEPEST - 1),
    ],
    ids=range(10),
)
@loop_over("name", ["mine.yaml", "mine.json"])
def test_hostile_files_are_answered_at_once(text, name):
    start = time.process_time()
    assert len(refusal(text, name)) < 2000
    assert time.process_time() - start < 5


pieces = st.sampled_from(
    ["loss", "Hinge", "data", "R1", ": ", "\n", "  ", "- ", "[", "]", "{", "}", ",", "'", '"', "\\", "#", "(", ")"]
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(pieces | st.text(max_size=3), max_size=20).map("".join))
def test_any_file_is_a_config_or_a_message(text):
    for name in ("any.yaml", "any.json"):
        try:
            Path(name).write_bytes(b"recipe: dcgan_digits\n" * name.endswith("yaml") + text.encode(errors="replace"))
            load(name)
        except ValueError as error:
            assert raised_here(error)  # noqa: PT017  (a message is one of two outcomes)


# ---- on the command line ------------------------------------------------------------------------------------------


def test_the_command_line_takes_files(tmp_path):
    written("recipe: dcgan_digits\nloss: Hinge\n")
    said = run("train", "mine.yaml", tmp_path / "r", "seed=3", "--dry-run")
    assert said == to_text(replace(dcgan_digits(), loss=Hinge(), seed=3))
    written(said, "config.txt")
    assert run("train", "config.txt", tmp_path / "r", "--dry-run") == said
    assert "line 1, 'los'" in run("train", written("los: Hinge"), tmp_path / "r", code=2)


def test_a_component_of_the_users_own_in_a_file(tmp_path):
    Path("own.py").write_text(
        "from dataclasses import replace\n"
        "from equipoise import Hinge\n"
        "from equipoise.core.types import component\n"
        "from equipoise.recipes.dcgan import dcgan_digits\n"
        "@component\n"
        "class Own(Hinge):\n"
        "    weight: float = 1.0\n"
        "def recipe():\n"
        "    return replace(dcgan_digits(), loss=Own())\n"
    )
    said = run("train", written("recipe: own.py:recipe\nloss: Own(weight=3)\n"), tmp_path / "r", "--dry-run")
    assert "loss=Own(weight=3.0)" in said
    written(said, "config.txt")
    assert "--recipe FILE.py:FUNCTION" in run("train", "config.txt", tmp_path / "r", "--dry-run", code=2)
    for recipe in ("own.py:recipe", "mine.yaml"):
        assert run("train", "config.txt", tmp_path / "r", "--dry-run", "--recipe", recipe) == said
