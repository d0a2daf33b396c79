"""Configs: the grammar, overrides in any order, text that reads back, and errors that say what to do."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from dataclasses import replace
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loops import for_each, loop_over

from equipoise import recipes
from equipoise.config import TrainConfig, components, known_to, override, to_text
from equipoise.core.grammar import differences, parse
from equipoise.core.quoting import as_saved
from equipoise.core.schedules import Cosine, Linear
from equipoise.core.types import component
from equipoise.data import Digits, Few, Images
from equipoise.losses import (
    R1,
    R2,
    Consensus,
    FeatureMatching,
    GANLoss,
    GradientPenalty,
    Hinge,
    HistoricalAverage,
    LeastSquares,
    Orthogonal,
    RelativisticPairing,
    Wasserstein,
)
from equipoise.losses import adversarial as losses
from equipoise.models import Head, SemiSupervised
from equipoise.recipes.dcgan import dcgan_digits
from equipoise.recipes.san import san_digits
from equipoise.recipes.sngan import sngan_digits
from equipoise.rules import Adam, FreezeD, RMSprop, ToConvergence
from equipoise.weights import NoNormalizer, SpectralNorm, constraints, normalizers

KNOWN = components()
REQUIRED: dict[str, dict[str, Any]] = {  # fields without a default
    "After": {"schedule": 1.0, "kimg": 5.0},
    "Linear": {"start": 1.0, "end": 0.0, "kimg": 5.0},
    "Cosine": {"start": 1.0, "end": 0.0, "kimg": 5.0},
    "Steps": {"start": 1.0, "steps": ((5.0, 0.5),)},
    "Images": {"path": "a/b"},
    "HuggingFace": {"path": "a/b"},
    "FreezeD": {"run": "runs/a"},
    "Transfer": {"run": "runs/a"},
    "TrainConfig": {f.name: getattr(dcgan_digits(), f.name) for f in dataclasses.fields(TrainConfig)},
}
every_component = for_each(KNOWN)
every_recipe = for_each(recipes.available())


def example(name, **fields):
    return KNOWN[name](**REQUIRED.get(name, {}) | fields)


def another(value, hint):
    """A value of a field's type that differs from `value`, or None where the type is not a plain one."""
    choices = get_args(hint) if get_origin(hint) in (Union, UnionType, Literal) else (hint,)
    if get_origin(hint) is Literal:
        return next(choice for choice in choices if choice != value)
    if bool in choices:
        return not value
    if int in choices:
        return (value or 0) + 1
    if float in choices:
        return 0.5 if value != 0.5 else 0.25
    return None


# ---- what every component keeps, and a new one inherits --------------------------------------------------------


@every_component
def test_is_frozen_and_hashable(name):
    value = example(name)
    assert value == example(name)
    assert hash(value) == hash(example(name))
    for field in dataclasses.fields(value):
        with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field"):
            setattr(value, field.name, None)


@every_component
def test_repr_reads_back(name):
    """The default, and a value that differs from it in one field, for each field of a plain type."""
    values, hints = [example(name)], get_type_hints(KNOWN[name])
    for field in dataclasses.fields(KNOWN[name]):
        other = another(getattr(values[0], field.name), hints[field.name])
        if other is not None:
            with suppress(ValueError):  # out of its range, or not without another field
                values.append(replace(values[0], **{field.name: other}))
    for value in values:
        back = parse(repr(value), KNOWN)
        assert back == value
        assert repr(back) == repr(value)


@every_component
def test_a_bare_word_is_a_call(name):
    if name not in REQUIRED:
        assert parse(name, KNOWN) == parse(f"{name}()", KNOWN) == KNOWN[name]()


@every_component
def test_an_unknown_field_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} has no field 'no_such_field'"):
        example(name, no_such_field=1)
    given_fields = ", ".join(f"{k}={v!r}" for k, v in REQUIRED.get(name, {}).items())
    with pytest.raises(ValueError, match=f"{name} has no field 'no_such_field'"):
        parse(f"{name}({given_fields + ', ' if given_fields else ''}no_such_field=1)", KNOWN)


@every_component
def test_a_missing_field_is_named(name):
    for field in REQUIRED.get(name, {}):
        if KNOWN[name].__dataclass_fields__[field].default is dataclasses.MISSING:
            with pytest.raises(ValueError, match=f"{name} needs the field '{field}'"):
                parse(name, KNOWN)


@every_component
def test_has_a_docstring(name):
    assert KNOWN[name].__doc__
    assert not KNOWN[name].__doc__.startswith(f"{name}(")  # the one that dataclasses makes up


# ---- text -> values --------------------------------------------------------------------------------------------


@loop_over(
    ("text", "value"),
    [
        ("1", 1),
        ("-1", -1),
        ("-2.5e-4", -2.5e-4),
        ("1e-4", 1e-4),
        ("true", True),
        ("True", True),
        ("false", False),
        ("none", None),
        ("None", None),
        ("projection", "projection"),
        ("'two words'", "two words"),
        ('"Hinge"', "Hinge"),
        ("Hinge", Hinge()),
        (" Hinge( ) ", Hinge()),
        ("LeastSquares(a=-1, b=1)", LeastSquares(a=-1.0)),
        ("[]", ()),
        ("[R1, R2(gamma=5)]", (R1(), R2(gamma=5.0))),
        ("(R1,)", (R1(),)),
        ("[[1, -2], [x]]", ((1, -2), ("x",))),
        ("Adam(lr=Linear(start=1e-3, end=0, kimg=5), betas=(0, 0.9))", Adam(lr=Linear(1e-3, 0.0, 5.0), betas=(0, 0.9))),
        ("SpectralNorm(skip=['body.0', 'head.*'])", SpectralNorm(skip=("body.0", "head.*"))),
        ("Images(path='/data/my digits')", Images(path="/data/my digits")),
        ("/data/digits", "/data/digits"),
        ("~/digits", "~/digits"),
        ("runs/a", "runs/a"),
        ("../a", "../a"),
        ("digits.zip", "digits.zip"),
        ("my-digits", "my-digits"),
        ("C:\\digits", "C:\\digits"),
        ("", ""),
    ],
)
def test_grammar(text, value):
    found = parse(text, KNOWN)
    assert found == value
    assert type(found) is type(value)


@loop_over(
    "text",
    [
        "lambda: 1",
        "(lambda: 1)()",
        "os.system('true')",
        "Hinge.__class__()",
        "Hinge().d",
        "[x for x in (1, 2)]",
        "1 if 2 else 3",
        "Hinge()()",
        "{'a': 1}",
        "{1, 2}",
        "f'{Hinge}'",
        "R1(gamma=(1).__class__)",
        "R1(gamma=1 + 1)",
        "R1(gamma=[1][0])",
        "(x := 1)",
        "R1(gamma=5",
        "not R1()",
        "+5",
        "~5",
    ],
)
def test_code_is_refused(text):
    with pytest.raises(ValueError, match=r"cannot read .*: expected a literal or Component\(key=value, \.\.\.\)"):
        parse(text, KNOWN)


@loop_over("text", ["__import__('os')", "__import__(name='os')", "eval('1')", "open(file='x')", "print()"])
def test_builtins_are_no_components(text):
    with pytest.raises(ValueError, match=rf"unknown component '{text.partition('(')[0]}'"):
        parse(text, KNOWN)


@loop_over("text", ["R1(5)", "R1(5, every=2)", "R1(*[5])", "R1(**{'gamma': 5})", "R1(gamma=1, gamma=2)"])
def test_fields_are_named_once(text):
    """Nothing is dropped: neither ** nor the first of two."""
    with pytest.raises(ValueError, match=r"name the fields of R1, each once, as in R1\(key=value\)"):
        parse(text, KNOWN)


def test_an_unknown_component_is_named_with_the_nearest():
    with pytest.raises(ValueError, match="unknown component 'Hing'; did you mean 'Hinge'"):
        parse("Hing()", KNOWN)
    with pytest.raises(ValueError, match=r"unknown component 'Xyzzy'; known: .*Hinge"):
        parse("[R1(gamma=1), Xyzzy()]", KNOWN)


def test_an_unknown_field_is_named_with_the_nearest():
    with pytest.raises(ValueError, match="R1 has no field 'gama'; did you mean 'gamma'"):
        parse("[R1(gama=5)]", KNOWN)
    with pytest.raises(ValueError, match="ClipWeights has no field 'qqq'; known: bound"):
        parse("ClipWeights(qqq=5)", KNOWN)


text = st.text("aZ0_: é'\"\\\n().=[", max_size=8)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda values: st.lists(values, max_size=3).map(tuple),
    max_leaves=6,
)


@given(plain)
def test_literals_read_back(value):
    assert parse(as_saved(repr(value)), KNOWN) == value


betas = st.floats(0, 1, exclude_max=True) | st.builds(Cosine, start=st.just(0.5), end=st.just(0.9), kimg=st.just(3.0))
schedules = st.floats(0, 1e9) | st.builds(Cosine, start=st.floats(0, 1), end=st.floats(0, 1), kimg=st.floats(1e-3, 1e6))


@given(
    config=st.builds(
        replace,
        st.sampled_from([dcgan_digits(), sngan_digits(), san_digits()]),
        loss=st.builds(LeastSquares, a=st.floats(-5, 5), b=st.floats(-5, 5), c=st.floats(-5, 5)),
        terms=st.lists(
            st.builds(R1, gamma=schedules, every=st.integers(1, 64)) | st.builds(GradientPenalty, strength=schedules),
            max_size=3,
        ).map(tuple),
        d_normalizer=st.builds(SpectralNorm, skip=st.lists(text, max_size=2).map(tuple)),
        g_optim=st.builds(Adam, lr=schedules, betas=st.tuples(betas, betas)),
        seed=st.integers(0, 2**63 - 1),
    )
)
def test_a_config_reads_back(config):
    assert parse(to_text(config), KNOWN) == config


# ---- overrides -------------------------------------------------------------------------------------------------


def changed(config, *items):
    """As on the command line: `key=value` in the order given."""
    pairs = [item.split("=", 1) for item in items]
    return override(config, {key: parse(text, KNOWN) for key, text in pairs})


def test_override():
    cfg = changed(
        san_digits(),
        "loss=Wasserstein",
        "terms=[R1(gamma=5), GradientPenalty]",
        "d_optim.lr=4e-4",
        "head.san=false",
        "d_normalizer.skip=[]",
        "batch_size=32",
    )
    assert cfg == replace(
        san_digits(),
        loss=Wasserstein(),
        terms=(R1(gamma=5.0), GradientPenalty()),
        d_optim=replace(san_digits().d_optim, lr=4e-4),
        head=replace(san_digits().head, san=False),
        d_normalizer=SpectralNorm(),
        batch_size=32,
    )


def test_nothing_changes_the_original():
    cfg = san_digits()
    changed(cfg, "head.san=false", "d_optim.lr=1.0")
    assert cfg == san_digits()
    assert override(cfg, {}) == cfg


@loop_over(
    "items",
    [
        ("loss=RelativisticPairing", "head.san=false"),
        ("head.conditioning=SemiSupervised", "head.san=false", "loss=NonSaturating"),
        ("d_optim=RMSprop", "d_optim.lr=1e-4"),
        ("terms=[R1, R2]", "terms.1.gamma=3"),
        ("terms=[R1]", "terms.0.gamma=Linear(start=1, end=0, kimg=1)", "terms.0.gamma.kimg=5"),
    ],
    ids=" ".join,
)
def test_the_order_of_overrides_does_not_matter(items):
    """Checked once, when all are made: each of these is illegal or unknown halfway, in one of the two orders."""
    assert changed(san_digits(), *items) == changed(san_digits(), *reversed(items))


def test_changes_inside_a_new_value():
    assert changed(san_digits(), "d_optim.lr=1e-4", "d_optim=RMSprop").d_optim == RMSprop(lr=1e-4)
    two = changed(san_digits(), "terms.0.every=8", "terms=[R1, R2]")
    assert two.terms == (R1(every=8), R2())


def test_an_index_names_one_of_several():
    cfg = replace(san_digits(), terms=(R1(), R2(), GradientPenalty()))
    assert changed(cfg, "terms.1.every=8").terms == (R1(), R2(every=8), GradientPenalty())
    assert changed(cfg, "terms.2=R1(gamma=2)").terms == (R1(), R2(), R1(gamma=2.0))
    assert changed(cfg, "d_optim.betas.0=0.5").d_optim.betas == (0.5, 0.99)


@loop_over("index", ["3", "-1", "00", "first", "²"])
def test_an_index_out_of_range_is_refused(index):
    cfg = replace(san_digits(), terms=(R1(), R2(), R1()))
    with pytest.raises(ValueError, match=rf"'{index}' is not an index into the 3 values"):
        override(cfg, {f"terms.{index}.every": 8})


# ---- what is refused, and how ----------------------------------------------------------------------------------


@loop_over(
    ("item", "message"),
    [
        ("los=Hinge", r"TrainConfig has no field 'los'; did you mean 'loss'"),
        ("d_optim.lrr=1", r"Adam has no field 'lrr'; did you mean 'lr'"),
        ("xyzzy=1", r"TrainConfig has no field 'xyzzy'; known: .*batch_size"),
        ("loss.smoothing=0.1", r"Hinge has no field 'smoothing'"),
        ("d_optim.lr.start=1", r"0\.001 has no fields, so 'start' cannot be set in it"),
        ("batch_size=0.5", r"TrainConfig\.batch_size takes a whole number of 1 or more, got 0\.5"),
        ("batch_size=true", r"TrainConfig\.batch_size takes a whole number of 1 or more, got True"),
        ("batch_size=many", r"TrainConfig\.batch_size takes a whole number of 1 or more, got 'many'"),
        ("batch_size=0", r"TrainConfig\.batch_size takes a whole number of 1 or more, got 0"),
        ("d_steps=0", r"TrainConfig\.d_steps takes a whole number of 1 or more, or a ToConvergence, got 0"),
        ("total_kimg=0", r"TrainConfig\.total_kimg takes a number above 0, got 0"),
        ("total_kimg=-5", r"TrainConfig\.total_kimg takes a number above 0, got -5"),
        ("total_kimg=1e400", r"TrainConfig\.total_kimg takes a finite number above 0, got inf"),
        ("d_optim.lr=1e400", r"^Adam\.lr takes a finite number of 0 or more, or a schedule, got inf$"),
        ("d_optim.betas=[1e400,0.9]", r"^Adam\.betas\.0 takes a finite number of 0 or more, or a schedule, got inf$"),
        (
            "terms=[R1(gamma=1e400)]",
            r"^R1\.gamma takes a finite number of 0 or more, a schedule, or a ByResolution, got inf",
        ),
        ("ema.halflife_kimg=1e400", r"EMAConfig\.halflife_kimg takes a finite number of 0 or more, got inf"),
        ("total_kimg=1e308", r"^total_kimg takes numbers below 2\*\*63 = 9\.2e18, got 1e\+308$"),
        ("seed=9223372036854775808", r"^seed takes numbers below 2\*\*63 = 9\.2e18, got 9223372036854775808$"),
        (f"seed=0x{'f' * 900}", r"^seed takes numbers below .*, got an integer of 3600 bits$"),
        ("terms=[R1(every=10000000000000000000)]", r"^terms\.0\.every takes numbers below 2"),
        ("batch_size=10**9", r"TrainConfig\.batch_size takes a whole number of 1 or more, got '10\*\*9'"),
        ("seed=-1", r"TrainConfig\.seed takes a whole number of 0 or more, got -1"),
        ("d_optim.lr=fast", r"^Adam\.lr takes a number of 0 or more, or a schedule, got 'fast'"),
        ("d_optim.lr=-1", r"^Adam\.lr takes a number of 0 or more, or a schedule, got -1$"),
        ("d_optim.lr=true", r"^Adam\.lr takes a number of 0 or more, or a schedule, got True"),
        (
            "d_optim.betas=0.5",
            r"Adam\.betas takes a list of 2, each item a number of 0 or more, or a schedule, got 0\.5$",
        ),
        ("head.san=yes", r"Head\.san takes true or false, got 'yes'; did you mean true\?"),
        ("head.san=1", r"Head\.san takes true or false, got 1$"),
        (
            "head.conditioning=projektion",
            r"Head\.conditioning takes a Conditioning, got 'projektion'; did you mean Projection\(\)\?",
        ),
        (
            "head.conditioning=per_class",
            r"Head\.conditioning takes a Conditioning, got 'per_class'; did you mean PerClass\(\)\?",
        ),
        ("head.conditioning=none", r"Head\.conditioning takes a Conditioning, got None"),
        (
            "generator.conditional=true",
            r"SANDigitsGenerator has no field 'conditional': G reads .* head\.conditioning=Projec",
        ),
        (
            "generator=SANDigitsGenerator(conditional=true)",
            r"has no field 'conditional': G reads .* head\.conditioning=Proj",
        ),
        ("head.labelled=40", r"Head has no field 'labelled': set head\.conditioning='SemiSupervised\(labelled=100\)'"),
        ("generator.width=0", r"SANDigitsGenerator\.width takes a whole number of 1 or more, got 0"),
        ("loss=R1", r"TrainConfig\.loss takes a GANLoss, got R1\(.*\); known: .*Hinge, LeastSquares, NonSaturating"),
        ("loss=hinge", r"TrainConfig\.loss takes a GANLoss, got 'hinge'; did you mean Hinge\(\)\?"),
        ("loss=none", r"TrainConfig\.loss takes a GANLoss, got None"),
        ("d_optim=Hinge", r"TrainConfig\.d_optim takes an OptimConfig, got Hinge\(\); known: Adam, .*RMSprop"),
        ("terms=[Hinge]", r"TrainConfig\.terms\.0 takes a Term, got Hinge\(\)"),
        ("terms=[R1, 5]", r"TrainConfig\.terms\.1 takes a Term, got 5"),
        (
            "terms=R1",
            r"TrainConfig\.terms takes a list, each item a Term, got R1\(.*; did you mean \[R1\(gamma=10\.0",
        ),
        ("constraints=[R1]", r"TrainConfig\.constraints\.0 takes a Constraint, got R1\(.*known: Clip"),
        ("generator=SANDigitsDiscriminator", r"TrainConfig\.generator takes a GeneratorConfig, got SANDigitsDisc"),
        ("head=Hinge", r"TrainConfig\.head takes a Head, got Hinge\(\); known: Head"),
        (
            "data=digits.zip",
            r"TrainConfig\.data: expected a data set or a path that exists, and 'digits\.zip' is neither",
        ),
        ("data=Images(path=5)", r"Images\.path: expected a path, as text or pathlib\.Path, got 5"),
    ],
)
def test_wrong_overrides_say_what_was_given_and_expected(item, message):
    with pytest.raises(ValueError, match=message):
        changed(san_digits(), item)


def test_several_mistakes_are_reported_together():
    with pytest.raises(ValueError, match=r"batch_size") as error:
        changed(san_digits(), "batch_size=0", "seed=-1", "total_kimg=long")
    assert [line.partition(" takes ")[0] for line in str(error.value).splitlines()] == [
        "TrainConfig.batch_size",
        "TrainConfig.total_kimg",
        "TrainConfig.seed",
    ]


def test_wrong_values_are_refused_in_python_too():
    for change in ({"batch_size": 0.5}, {"batch_size": True}, {"loss": R1()}, {"terms": (Hinge(),)}, {"seed": "1"}):
        with pytest.raises(ValueError, match=next(iter(change))):
            replace(san_digits(), **change)


# ---- illegal combinations --------------------------------------------------------------------------------------


def test_san_with_a_paired_loss_is_refused():
    """With its reason and its fix, wherever the config is made."""
    message = r"head\.san=true has no direction loss for the paired loss RelativisticPairing\(\).*\(head\.san=false\)"
    with pytest.raises(ValueError, match=message):
        replace(san_digits(), loss=RelativisticPairing())
    with pytest.raises(ValueError, match=message):
        changed(san_digits(), "loss=RelativisticPairing")
    with pytest.raises(ValueError, match=message):
        changed(dcgan_digits(), "loss=RelativisticPairing", "head.san=true")
    assert changed(san_digits(), "loss=RelativisticPairing", "head.san=false").loss.paired


def test_settings_of_g_for_classes_go_with_a_d_that_asks_for_them():
    message = (
        "class_input=shared gives .* this generator reads no class.* Set head.conditioning=Projection, or class_input="
    )
    for items in ((), ("head.conditioning=SemiSupervised",)):
        with pytest.raises(ValueError, match=message):
            changed(dcgan_digits(), "loss=NonSaturating", "generator=DCGANGenerator(class_input=shared)", *items)
    changed(dcgan_digits(), "generator=DCGANGenerator(class_input=shared)", "head.conditioning=Auxiliary")


@loop_over("loss", [name for name in losses.__all__ if name in KNOWN])
def test_classes_learned_from_few_labels_go_with_a_cross_entropy(loss):
    items = ("head.conditioning=SemiSupervised", f"loss={loss}")
    if loss in ("Saturating", "NonSaturating"):
        assert changed(dcgan_digits(), *items, "loss.smoothing=0.1").head.conditioning == SemiSupervised(labelled=100)
        return
    message = (
        rf"head\.conditioning=SemiSupervised\(.*\) and {loss}\(.*\) do not go together: D's logit is the log-odds "
        r"that .* its cross-entropy\. Use loss=NonSaturating or loss=Saturating, or another conditioning\."
    )
    with pytest.raises(ValueError, match=message):
        changed(dcgan_digits(), *items)


def test_classes_learned_from_few_labels_have_no_san():
    message = (
        r"head\.san=true is not defined for head\.conditioning=SemiSupervised\(.*\): .*head\.conditioning=Auxiliary\)"
    )
    with pytest.raises(ValueError, match=message):
        changed(dcgan_digits(), "head.san=true", "head.conditioning=SemiSupervised")
    with pytest.raises(ValueError, match=message):
        Head(SemiSupervised(), san=True)
    changed(san_digits(), "head.conditioning=Auxiliary")


@loop_over("constraint", [name for name in constraints.__all__ if name in KNOWN])
@loop_over("normalizer", [name for name in normalizers.__all__ if name in KNOWN])
def test_weights_that_a_normaliser_computes_cannot_be_projected(constraint, normalizer):
    items = (f"constraints=[{constraint}]", f"d_normalizer={normalizer}")
    if normalizer == "NoNormalizer":
        changed(dcgan_digits(), *items, "g_normalizer=SpectralNorm")  # G's weights are not projected
        return
    message = rf"{constraint}\(.*\) and d_normalizer={normalizer}\(.*\) do not go together: .*d_normalizer=NoNormalizer"
    with pytest.raises(ValueError, match=message):
        changed(dcgan_digits(), *items)
    changed(dcgan_digits(), items[0], f"g_normalizer={normalizer}")


def test_the_gradients_of_a_san_head_have_no_joint_penalty():
    """They lack what the head holds still, so their norm would be differentiated wrongly."""
    message = (
        r"Consensus\(gamma=2\.0.*\) and head\.san=true do not go together: .* lack those parts\. .*head\.san=false"
    )
    for items in (("head.san=true",), ("head.conditioning=Projection", "head.san=true")):
        with pytest.raises(ValueError, match=message):
            changed(dcgan_digits(), "terms=[Consensus(gamma=2)]", *items)
        changed(dcgan_digits(), *items)
    changed(dcgan_digits(), "terms=[Consensus(gamma=2)]", "head.san=false")


@loop_over("item", ["terms=[Orthogonal(player=G),HistoricalAverage(every=2,player=G)]", "terms=[Consensus(every=3)]"])
def test_lazy_terms_of_g_need_a_fixed_number_of_updates_of_d(item):
    name = "Consensus" if "Consensus" in item else "HistoricalAverage"
    prompt = item.replace("every=2", "every=1").replace("every=3", "every=1")
    message = rf"{name}\(.*every=\d.*\) and d_steps=ToConvergence\(.*\) do not go together: .*Use every=1, or d_steps=5"
    with pytest.raises(ValueError, match=message):
        changed(dcgan_digits(), item, "d_steps=ToConvergence")
    changed(dcgan_digits(), item, "d_steps=5")
    changed(dcgan_digits(), prompt, "d_steps=ToConvergence")
    changed(dcgan_digits(), "terms=[Orthogonal(every=2),R1]", "d_steps=ToConvergence")  # of D


@loop_over(
    ("item", "field", "value"),
    [
        ("d_steps=5", "d_steps", 5),
        ("d_steps=ToConvergence", "d_steps", ToConvergence()),
        ("d_steps=ToConvergence(tolerance=0,window=5,max_steps=50)", "d_steps", ToConvergence(0.0, 5, 50)),
        ("terms=[FeatureMatching]", "terms", (FeatureMatching(),)),
        ("terms=[FeatureMatching(adversarial=false)]", "terms", (FeatureMatching(1.0, False),)),
        ("terms=[Orthogonal]", "terms", (Orthogonal(),)),
        (
            "terms=[Orthogonal(every=2,player=G),HistoricalAverage(player=G)]",
            "terms",
            (Orthogonal(every=2, player="G"), HistoricalAverage(player="G")),
        ),
        ("terms=[Consensus(gamma=1)]", "terms", (Consensus(gamma=1.0),)),
        ('start=FreezeD(run="runs/a",layers=2)', "start", FreezeD("runs/a", layers=2)),
        ("start=none", "start", None),
        ("data=Few(of=Digits,num=500)", "data", Few(Digits(), num=500)),
        ('data=Few(of=Images(path="a"))', "data", Few(Images("a"))),
        ("head.conditioning=SemiSupervised(labelled=40)", "head", Head(SemiSupervised(labelled=40), init_std=0.02)),
    ],
)
def test_terms_on_the_command_line(item, field, value):
    """And as a run saves them."""
    cfg = changed(dcgan_digits(), item)
    assert getattr(cfg, field) == value
    assert parse(to_text(cfg), KNOWN) == cfg


@loop_over(
    ("item", "message"),
    [
        (
            "d_steps=Hinge",
            r"^TrainConfig\.d_steps takes a whole number of 1 or more, or a ToConvergence, got Hinge.*; known: ToCon",
        ),
        ("d_steps=1.5", r"d_steps takes a whole number of 1 or more, or a ToConvergence, got 1\.5"),
        ("d_steps=ToConvergence(window=0)", r"ToConvergence\.window takes a whole number of 1 or more, got 0"),
        ("d_steps=ToConvergence(max_steps=39)", r"max_steps=39 is less than two windows of 20 .* least max_steps=40"),
        ("start=runs/a", r"start takes a Start, or none, got 'runs/a'; known: FreezeD, Transfer"),
        ("start=FreezeD", r"FreezeD needs the field 'run'"),
        ("data=Few(num=0)", r"Few\.num takes a whole number of 1 or more, got 0"),
        ("data=Few(of=Hinge)", r"Few\.of takes a DatasetConfig, got Hinge"),
    ],
)
def test_wrong_terms_say_what_was_given_and_expected(item, message):
    with pytest.raises(ValueError, match=message):
        changed(dcgan_digits(), item)


# ---- values -> text ----------------------------------------------------------------------------------------------


@every_recipe
def test_every_recipe_reads_back(recipe):
    config, known = recipes.load(recipe)
    text = to_text(config)
    assert parse(text, known) == config
    assert to_text(parse(text, known)) == text
    assert len(text.splitlines()) == len(dataclasses.fields(config)) + 2  # a field a line


def test_what_cannot_be_read_back_cannot_be_saved():
    """A lambda for a schedule trains, and its text would not say what it was."""
    config = replace(dcgan_digits(), d_optim=Adam(lr=lambda nimg: 1e-3))
    with pytest.raises(ValueError, match=r"cannot be saved as text that reads back the same.*not a function"):
        to_text(config)


@component
class Squared(GANLoss):
    """A loss of the user's own."""

    power: float = 2.0

    def d(self, real, fake):
        return (1 - real).abs() ** self.power + fake.abs() ** self.power

    def g(self, fake, real=None):
        return (1 - fake).abs() ** self.power


@component
class Half(GANLoss):
    """A loss whose repr keeps a field to itself."""

    scale: float = dataclasses.field(default=1.0, repr=False)

    def d(self, real, fake):
        return self.scale * (fake - real)

    def g(self, fake, real=None):
        return -self.scale * fake


def test_what_reads_back_as_something_else_cannot_be_saved():
    with pytest.raises(ValueError, match="cannot be saved as text that reads back the same"):
        to_text(replace(dcgan_digits(), loss=Half(scale=2.0)))


def test_a_component_of_the_users_own_reads_back():
    config = replace(dcgan_digits(), loss=Squared(power=3.0))
    text = to_text(config)
    assert "loss=Squared(power=3.0)" in text
    assert parse(text, KNOWN | {"Squared": Squared}) == config
    assert known_to(config)["Squared"] is Squared
    with pytest.raises(ValueError, match="unknown component 'Squared'"):
        parse(text, KNOWN)


# ---- differences -------------------------------------------------------------------------------------------------


def test_differences_name_the_fields():
    old = san_digits()
    new = changed(old, "d_optim.lr=2e-3", "loss=Wasserstein", "head.san=false", "terms=[R1]", "d_optim.betas.0=0.5")
    assert differences(old, new) == [
        "head.san: True -> False",
        "loss: Hinge() -> Wasserstein()",
        "terms: () -> (R1(gamma=10.0, every=16),)",
        "d_optim.lr: 0.001 -> 0.002",
        "d_optim.betas: (0.0, 0.99) -> (0.5, 0.99)",
    ]
    assert differences(old, san_digits()) == []


def test_a_difference_of_kind_shows_both():
    assert differences(san_digits(), changed(san_digits(), "d_normalizer=NoNormalizer")) == [
        f"d_normalizer: {SpectralNorm(skip=('body.0', 'head.*'))!r} -> {NoNormalizer()!r}"
    ]


# ---- data by its path ------------------------------------------------------------------------------------


@loop_over("name", ["photos", "my photos", "a-b.zip", "photos.d"])
def test_a_path_that_exists_means_the_images_there(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    cfg = override(sngan_digits(), {"data": parse(name, components())})
    assert cfg.data == Images(path=name)
    assert parse(to_text(cfg), components()) == cfg


def test_a_path_that_does_not_exist_is_no_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"a path that exists, and 'Digit' is neither; did you mean Digits\(\)\?"):
        override(sngan_digits(), {"data": "Digit"})
    with pytest.raises(ValueError, match=r"a path that exists, and 'my photos' is neither; known: CIFAR10, Digits"):
        override(sngan_digits(), {"data": "my photos"})
