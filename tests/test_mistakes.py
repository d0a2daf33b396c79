"""Wrong fields: one sentence from Python, the command line and files, with the class, the field and what was given."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Callable, Mapping
from dataclasses import field, replace
from typing import Any, ClassVar, Literal

import pytest
from loops import loop_over
from pydantic import Field
from test_config import KNOWN, REQUIRED, changed, every_component, example

from equipoise import config
from equipoise.config import TrainConfig, build, override
from equipoise.core.grammar import parse
from equipoise.core.mistakes import suggest
from equipoise.core.schedules import Linear
from equipoise.core.types import component
from equipoise.data import CIFAR10, Digits, Few, Images
from equipoise.losses import R1, R2, Hinge
from equipoise.models import Head
from equipoise.recipes.dcgan import dcgan_digits
from equipoise.recipes.san import san_digits
from equipoise.rules import Adam, ProgressiveGrowing
from equipoise.weights import SpectralNorm

WRONG: list[Any] = ["nonsense", -1, 1e400, [], {}, object(), Hinge, None, True, 0.5, ["nonsense", {}], [[-1]], R1()]
FOREIGN = (
    "pydantic",
    "Input should",
    "type=",
    "callable",
    "constrained",
    "function-",
    "valid number",
    "NoneType",
    "Field",
)


def refusal(make: Callable[[], object]) -> str | None:
    try:
        make()
    except ValueError as error:
        return str(error) if type(error) is ValueError else f"{type(error)}"
    return None


@every_component
def test_a_wrong_field_is_answered_in_the_same_words_everywhere(name):
    for each in dataclasses.fields(KNOWN[name]):
        for wrong in WRONG:
            said = refusal(lambda n=each.name, w=wrong: example(name, **{n: w}))
            assert said == refusal(lambda n=each.name, w=wrong: override(example(name), {n: w}))
            assert said == refusal(lambda n=each.name, w=wrong: replace(example(name), **{n: w}))
            if isinstance(wrong, str | int | float) and abs(float(wrong) if wrong != "nonsense" else 0) < 9:
                given = REQUIRED.get(name, {}) | {each.name: wrong}
                text = ", ".join(f"{key}={value!r}" for key, value in given.items())
                assert said == refusal(lambda t=text: parse(f"{name}({t})", KNOWN))
            if said is not None:
                assert not [word for word in FOREIGN if word in said.replace(repr(wrong), "")]
                assert f"{name}.{each.name}" in said or "__post_init__" in vars(KNOWN[name])  # whose words are its own


@every_component
def test_no_field_takes_an_object(name):
    """So the walk above has met a refusal of every field."""
    for each in dataclasses.fields(KNOWN[name]):
        wrong = object()
        said = refusal(lambda n=each.name, w=wrong: example(name, **{n: w}))
        assert said is not None
        assert said.startswith(f"{name}.{each.name}")
        assert repr(wrong) in said


@loop_over(
    ("make", "message"),
    [
        (lambda: R1(gama=2), "R1 has no field 'gama'; did you mean 'gamma'?"),
        (lambda: R1(gamma="x"), "R1.gamma takes a number of 0 or more, a schedule, or a ByResolution, got 'x'"),
        (lambda: R1("x"), "R1.gamma takes a number of 0 or more, a schedule, or a ByResolution, got 'x'"),
        (lambda: R1(gamma=-1), "R1.gamma takes a number of 0 or more, a schedule, or a ByResolution, got -1"),
        (lambda: R1(gamma=Hinge()), "R1.gamma takes a number of 0 or more, a schedule, or a ByResolution, got Hinge()"),
        (lambda: R1(1, gamma=2), "R1.gamma is given twice, by its position and by its name"),
        (lambda: R1(1, 2, 3), "R1 takes at most 2 values, got 3: name its fields"),
        (lambda: R1(every=0.5), "R1.every takes a whole number of 1 or more, got 0.5"),
        (lambda: Adam(lr="fast"), "Adam.lr takes a number of 0 or more, or a schedule, got 'fast'"),
        (lambda: Adam(lr=float("nan")), "Adam.lr takes a finite number of 0 or more, or a schedule, got nan"),
        (
            lambda: Adam(betas=(0.5,)),
            "Adam.betas takes a list of 2, each item a number of 0 or more, or a schedule, got (0.5,)",
        ),
        (lambda: Adam(betas=[0.5, "x"]), "Adam.betas.1 takes a number of 0 or more, or a schedule, got 'x'"),
        (lambda: Linear(1, 0, 0), "Linear.kimg takes a number above 0, got 0"),
        (lambda: Linear(1, 0), "Linear needs the field 'kimg': a number above 0"),
        (lambda: Images(), "Images needs the field 'path': a text, or a path"),
        (lambda: Images(5), "Images.path: expected a path, as text or pathlib.Path, got 5"),
        (lambda: Images("a", channels=2), "Images.channels takes one of 1, 3, or none, got 2"),
        (lambda: Head(san="no"), "Head.san takes true or false, got 'no'; did you mean false?"),
        (lambda: Head("projektion"), "takes a Conditioning, got 'projektion'; did you mean Projection()?"),
        (
            lambda: SpectralNorm(skip="body"),
            "SpectralNorm.skip takes a list, each item a text, got 'body'; did you mean [",
        ),
        (
            lambda: ProgressiveGrowing(batch_sizes=[[4, 0]]),
            "ProgressiveGrowing.batch_sizes.0.1 takes a whole number of 1 or more, got 0",
        ),
        (
            lambda: replace(san_digits(), loss="Hinge"),
            "TrainConfig.loss takes a GANLoss, got 'Hinge'; did you mean Hinge()?",
        ),
        (
            lambda: replace(san_digits(), loss=Hinge),
            "TrainConfig.loss takes a GANLoss, got the class Hinge; did you mean Hinge()?",
        ),
        (lambda: replace(san_digits(), terms="r1"), "each item a Term, got 'r1'; did you mean [R1()]?"),
        (
            lambda: replace(san_digits(), terms=R2()),
            "got R2(gamma=10.0, every=16); did you mean [R2(gamma=10.0, ev",
        ),
        (
            lambda: replace(san_digits(), lr=1),
            "TrainConfig has no field 'lr'; did you mean 'g_optim.lr' or 'd_optim.lr'?",
        ),
        (lambda: replace(san_digits(), sann=True), "TrainConfig has no field 'sann'; did you mean 'head.san'?"),
        (lambda: replace(san_digits(), data="Digits"), "and 'Digits' is neither; did you mean Digits()?"),
        (lambda: replace(san_digits(), data="images"), "and 'images' is neither; did you mean Images(path=...)?"),
        (lambda: Hinge(margin=1), "Hinge has no field 'margin': it has none"),
        (lambda: TrainConfig(loss=Hinge()), "TrainConfig needs the field 'generator': a GeneratorConfig"),
    ],
)
def test_sentences(make, message):
    assert message in (refusal(make) or "")


def test_a_misspelt_field_comes_before_those_that_are_missing():
    assert (refusal(lambda: Images(pth="a")) or "").splitlines() == [
        "Images has no field 'pth'; did you mean 'path'?",
        "Images needs the field 'path': a text, or a path",
    ]


def test_a_schedule_that_is_none_is_told_once():
    said = refusal(lambda: Adam(lr=lambda nimg: -1.0)) or ""
    assert said.startswith("Adam.lr: expected a schedule of numbers that are not negative, got -1.0 from <function")
    assert len(said.splitlines()) == 1


def test_lists_are_taken_for_tuples():
    """In Python as on the command line, lists of lists too."""
    assert replace(san_digits(), terms=[R1(), R2()]) == replace(san_digits(), terms=(R1(), R2()))
    assert ProgressiveGrowing(batch_sizes=[[4, 8]]) == ProgressiveGrowing(batch_sizes=((4, 8),))
    assert override(san_digits(), {"terms": [R1()], "terms.0.gamma": 2}).terms == (R1(gamma=2.0),)


# ---- the constructor is still that of a dataclass ----------------------------------------------------------------


@component
class Outer:
    """A component that names a later one."""

    inner: Inner | None = None
    sizes: list[int] = field(default_factory=lambda: [1])
    kind: Literal["a", "b"] = "a"


@component
class Inner:
    """The later one."""

    width: int = Field(default=1, ge=1, le=8)


@component
class Wider(Inner):
    """A subclass with a check of its own."""

    depth: float = Field(default=0.0, gt=-1, lt=1)

    def __post_init__(self) -> None:
        if self.width == 3:
            raise ValueError("width=3 does not go here: take another")


class Plain(Inner):
    """One without the decorator."""


def test_a_class_that_names_a_later_one():
    assert Outer(Inner(2)).inner == Inner(2)
    for _ in range(2):
        assert refusal(lambda: Outer(5)) == "Outer.inner takes an Inner, or none, got 5; known: Inner, Wider"
    assert Outer(sizes=[1, 2]).sizes == [1, 2]
    assert refusal(lambda: Outer(kind="c")) == "Outer.kind takes one of 'a', 'b', got 'c'"


def test_subclasses():
    assert refusal(lambda: Wider(width=9)) == "Wider.width takes a whole number from 1 to 8, got 9"
    assert refusal(lambda: Wider(depth=1)) == "Wider.depth takes a number above -1 and below 1, got 1"
    assert refusal(lambda: Wider(3)) == "width=3 does not go here: take another"
    assert refusal(lambda: Plain(width=9)) == "Plain.width takes a whole number from 1 to 8, got 9"


def test_copies_pickles_and_signatures():
    for value in (Wider(2, 0.5), san_digits()):
        assert pickle.loads(pickle.dumps(value)) == copy.deepcopy(value) == copy.copy(value) == replace(value) == value
    assert list(inspect.signature(Wider).parameters) == ["width", "depth"]
    assert Wider.__init__.__qualname__ == "Wider.__init__"


# ---- fields that have moved --------------------------------------------------------------------------------------


@component
class Report:
    """A group of fields."""

    every_kimg: float = 1.0


@component
class Run:
    """A component with a history."""

    moved: ClassVar[Mapping[str, str]] = {"log_kimg": "report.every_kimg", "ema.halflife": "ema.every", "old": "report"}

    report: Report = Report()
    ema: Report = Report()


def test_a_field_that_has_moved_is_answered_with_its_new_name():
    message = "Run has no field 'log_kimg': it is report.every_kimg now"
    assert refusal(lambda: Run(log_kimg=1)) == message
    assert refusal(lambda: replace(Run(), log_kimg=1)) == message
    assert refusal(lambda: override(Run(), {"log_kimg": 1})) == message
    assert refusal(lambda: parse("Run(log_kimg=1)", {"Run": Run})) == message


def test_a_nested_path_that_has_moved():
    for path, new in (("ema.halflife", "ema.every"), ("old.every_kimg", "report.every_kimg"), ("old", "report")):
        assert refusal(lambda p=path: override(Run(), {p: 1})) == f"Run has no field '{path}': it is {new} now"
    assert override(Run(), {"ema.every_kimg": 2}).ema.every_kimg == 2


def test_all_that_has_moved_is_said_at_once():
    said = refusal(lambda: override(Run(), {"log_kimg": 1, "old": 2, "repot": 3})) or ""
    assert [line.partition(": ")[0].partition(";")[0] for line in said.splitlines()] == [
        "Run has no field 'log_kimg'",
        "Run has no field 'old'",
        "Run has no field 'repot'",
    ]


def test_the_table_of_train_config(monkeypatch):
    monkeypatch.setitem(config.MOVED, "bf16", "head.san")
    message = "TrainConfig has no field 'bf16': it is head.san now"
    assert refusal(lambda: replace(san_digits(), bf16=True)) == message
    assert refusal(lambda: override(san_digits(), {"bf16": True})) == message
    assert refusal(lambda: build({"bf16": True})) == message


def test_every_new_name_is_a_field():
    for new in config.MOVED.values():
        value: Any = dcgan_digits()
        for part in new.split("."):
            fields = {each.name for each in dataclasses.fields(value)} if dataclasses.is_dataclass(value) else set()
            assert part in fields or value is None
            value = getattr(value, part, None)


def test_suggestions_look_one_level_down():
    assert refusal(lambda: override(san_digits(), {"normalize_loss": 1})) == (
        "TrainConfig has no field 'normalize_loss'; did you mean 'head.normalize_loss'?"
    )
    assert suggest("width", ["with", "g.width", "d.width"]) == "; did you mean 'g.width' or 'd.width'?"
    assert suggest("wdth", ["batch", "g.width", "d.width"]) == "; did you mean 'g.width'?"
    assert suggest("with", ["width", "g.width"]) == "; did you mean 'width'?"
    assert suggest("qqq", ["width", "g.width"]) == "; known: width"


# ---- data --------------------------------------------------------------------------------------------------------


def test_a_path_of_data_makes_images():
    expected = replace(san_digits(), data=Images("photos", resolution=64))
    assert changed(san_digits(), "data.path=photos", "data.resolution=64") == expected
    assert changed(san_digits(), "data.resolution=64", "data.path=photos") == expected
    assert changed(expected, "data.resolution=32").data == Images("photos", resolution=32)


def test_a_set_that_has_a_path_keeps_its_kind():
    cfg = replace(san_digits(), data=CIFAR10())
    assert changed(cfg, "data.path=a").data == CIFAR10(path="a")
    assert changed(cfg, "data.path=a", "data.resolution=16").data == Images("a", resolution=16)


def test_a_path_that_exists_takes_fields(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    assert changed(san_digits(), "data.resolution=8", "data=photos").data == Images("photos", resolution=8)


@loop_over(
    ("items", "message"),
    [
        (
            ["data.resolution=64"],
            "Digits has no field 'resolution', which Images have: give their path too, as in data.pa",
        ),
        (["data.path=a", "data.resolutoin=64"], "Images has no field 'resolutoin'; did you mean 'resolution'?"),
        (["data.path=a", "data=Digits"], "Digits has no field 'path'"),
        (
            ["data=photoz", "data.resolution=64"],
            "TrainConfig.data: expected a data set or a path that exists, and 'photoz'",
        ),
        (["data=Few", "data.path=a"], "Few has no field 'path'"),
    ],
)
def test_what_makes_no_images(items, message):
    assert message in (refusal(lambda: changed(san_digits(), *items)) or "")


def test_a_choice_of_other_data_is_not_lost():
    cfg = replace(san_digits(), data=Few(num=100))
    with pytest.raises(ValueError, match=r"Few has no field 'path': give data\.of='Images\(path=\.\.\.\)', or data="):
        changed(cfg, "data.path=photos")
    assert changed(cfg, "data.of=Images(path=photos)").data == Few(of=Images("photos"), num=100)
    assert changed(cfg, "data.of=Digits").data == Few(of=Digits(), num=100)


# ---- paths -------------------------------------------------------------------------------------------------------


@loop_over("path", ["loss.", ".loss", "d_optim..lr", ".", "", "penalties.0."])
def test_a_path_lacks_no_field(path):
    with pytest.raises(ValueError, match=r"is not a path: expected fields joined by points, such as d_optim\.lr"):
        override(san_digits(), {path: Hinge()})
