"""Configs saved by earlier versions, rewritten for this version."""

from __future__ import annotations

import ast

__all__ = ["of_today"]

CONDITIONINGS = {
    "none": "NoConditioning",
    "projection": "Projection",
    "per_class": "PerClass",
    "input": "Input",
    "hidden": "Hidden",
    "auxiliary": "Auxiliary",
    "semi_supervised": "SemiSupervised",
}
GROUPS = {
    "compute": ("Compute", ("precision", "convolutions", "compile", "micro_batch")),
    "report": ("Report", ("log_kimg", "snapshot_kimg", "evaluation")),
}
"""Former fields of the config that belong to a component now."""
TERMS = ("penalties", "d_regularizers", "g_regularizers", "feature_matching", "joint_penalties")


def of_today(text: str) -> str:
    """The text of a saved config with the fields of this version; any other text unchanged.

    Earlier versions had five fields of terms. Settings of computing and reporting were fields of the config itself.
    Conditioning was a word, and a field of G said whether G reads the class.
    """
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return text
    fields = {k.arg: k.value for k in call.keywords if k.arg} if isinstance(call, ast.Call) else {}
    if not fields.keys() & {*TERMS, "reuse_fakes"}:
        return text
    written = {name: ast.unparse(value) for name, value in fields.items()}
    terms = ", ".join(ast.unparse(term) for name in TERMS if name in fields for term in terms_of(name, fields[name]))
    new = {"terms": f"[{terms}]", "start": written.pop("transfer", "None")}
    new["game"] = f"Generation(reuse={written.pop('reuse_fakes', 'False')})"
    for name, (component, parts) in GROUPS.items():
        given = ", ".join(f"{part}={written.pop(part)}" for part in parts if part in written)
        new[name] = f"{component}({given})"
    if isinstance(fields.get("head"), ast.Call):
        new["head"] = head_of(fields["head"])
    if isinstance(fields.get("generator"), ast.Call):
        new["generator"] = without(fields["generator"], "conditional")
    kept = {name: value for name, value in written.items() if name not in TERMS}
    return f"TrainConfig({', '.join(f'{name}={value}' for name, value in (kept | new).items())})"


def terms_of(name: str, value: ast.expr) -> list[ast.expr]:
    """The terms in the field `name`. Terms on the weights of G get `player="G"`."""
    if name == "feature_matching":
        return [value] if isinstance(value, ast.Call) else []
    terms = list(value.elts) if isinstance(value, ast.Tuple | ast.List) else []
    for term in terms if name == "g_regularizers" else ():
        if isinstance(term, ast.Call):
            term.keywords.append(ast.keyword("player", ast.Constant("G")))
    return terms


def head_of(head: ast.expr) -> str:
    """The text of `head` with its conditioning word replaced by a component."""
    assert isinstance(head, ast.Call)
    given = {k.arg: k.value for k in head.keywords if k.arg}
    word, labelled = given.pop("conditioning", None), given.pop("labelled", None)
    if isinstance(word, ast.Constant) and word.value in CONDITIONINGS:
        name = CONDITIONINGS[word.value]
        inside = f"labelled={ast.unparse(labelled)}" if name == "SemiSupervised" and labelled is not None else ""
        return f"Head(conditioning={name}({inside}), {', '.join(f'{k}={ast.unparse(v)}' for k, v in given.items())})"
    return ast.unparse(head)


def without(component: ast.expr, field: str) -> str:
    assert isinstance(component, ast.Call)
    component.keywords = [k for k in component.keywords if k.arg != field]
    return ast.unparse(component)
