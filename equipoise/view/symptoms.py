"""The doctor's section of a report: symptoms with evidence, causes and changes, and their course."""

from __future__ import annotations

import html

from equipoise.doctor import Evidence, Finding, command, course, examine
from equipoise.runs import Run

__all__ = ["doctor"]


def doctor(run: Run) -> str:
    """The symptoms that the run has at its end, and those that it had; empty before the first statistics."""
    if not run.stats:
        return ""
    evidence = Evidence.of(run.stats, run.config)
    found = examine(evidence)
    blocks = [block(finding, str(run.folder)) for finding in found]
    noted = [
        f"<li>{html.escape(each.symptom.title)}: from {each.begun:g} kimg"
        f"{'' if each.ended is None else f' to {each.ended:g} kimg'}</li>"
        for each in course(evidence)
    ]
    past = f'<p class="note">Noted while it trained:</p><ul>{"".join(noted)}</ul>' if noted else ""
    return ("".join(blocks) or "<p>No symptom.</p>") + past


def block(finding: Finding, run: str) -> str:
    symptom = finding.symptom
    rows = [("evidence", html.escape(finding.evidence)), ("causes", html.escape("; ".join(finding.causes)))]
    tries = [f"<code>{html.escape(c.pasted)}</code> {html.escape(c.why)}" for c in finding.changes]
    rows += [("try", "<br>".join(tries))] if tries else []
    text = command(finding, run)
    rows += [("command", f"<code>{html.escape(text)}</code>")] if text else []
    rows.append(("threshold", html.escape(symptom.source)))
    cells = "".join(f"<tr><th>{label}</th><td>{content}</td></tr>" for label, content in rows)
    title = html.escape(f"{symptom.title} ({symptom.severity})")
    return f'<h3>{title}</h3><div class="table"><table><tbody>{cells}</tbody></table></div>'
