"""What a request may ask of the engine beside its deadline, as the terms of a ticket."""

from __future__ import annotations

from dataclasses import dataclass

from bundle import Manifest
from service.engine.ticket import Exit, StoppedBy
from service.errors import InvalidField, NoExitRule
from service.schemas import Knobs


@dataclass(frozen=True, slots=True)
class Terms:
    """Fields of a ticket that follow from the request's knobs."""

    member_limit: int
    limited_by: StoppedBy
    member_minimum: int
    exit: Exit | None


def terms(wanted: Knobs, manifest: Manifest) -> Terms:
    """The terms of a request for a bundle.

    Raises:
        InvalidField: the knobs contradict each other or the bundle.
        NoExitRule: no early exit of the bundle has a risk as small as asked for.
    """
    _check_task(wanted, manifest)
    total = len(manifest.members)
    minimum = wanted.min_members or 1
    if minimum > min(total, wanted.max_members or total):
        raise InvalidField(
            f"Field `min_members`: {minimum} is more than "
            + (f"`max_members`, {wanted.max_members}." if minimum <= total else f"the model's {total} members."),
            field="min_members",
        )
    # Where limits coincide, the first of them is named.
    limit, limited_by = total, StoppedBy.COMPLETE
    if wanted.max_members is not None and wanted.max_members < limit:
        limit, limited_by = wanted.max_members, StoppedBy.MAX_MEMBERS
    if wanted.target_accuracy is not None:
        enough = max(minimum, _reaching(wanted.target_accuracy, manifest))
        if enough < limit:
            limit, limited_by = enough, StoppedBy.TARGET_ACCURACY
    return Terms(limit, limited_by, minimum, _exit(wanted, manifest))


def _check_task(wanted: Knobs, manifest: Manifest) -> None:
    """Refuse what needs classes of a regression."""
    if manifest.task != "regression":
        return
    for name in ("target_accuracy", "exit_confidence", "exit_risk"):
        if getattr(wanted, name) is not None:
            raise InvalidField(f"Field `{name}`: a regression has no such thing; leave it out.", field=name)


def _reaching(accuracy: float, manifest: Manifest) -> int:
    """Members of the first prefix that is as accurate on the held-out split; all if there is none."""
    return next((prefix.members for prefix in manifest.prefixes if prefix.quality >= accuracy), len(manifest.members))


def _exit(wanted: Knobs, manifest: Manifest) -> Exit | None:
    if wanted.exit_confidence is not None and wanted.exit_risk is not None:
        raise InvalidField(
            "Field `exit_risk`: leave it or `exit_confidence` out; each says on its own when samples leave.",
            field="exit_risk",
        )
    if wanted.exit_confidence is not None:
        thresholds = (wanted.exit_confidence,) * (len(manifest.members) - 1)
        return Exit(thresholds, StoppedBy.EXIT_CONFIDENCE)
    if wanted.exit_risk is None:
        return None
    rules = [rule for rule in manifest.exits if rule.risk <= wanted.exit_risk]
    if not rules:
        known = ", ".join(f"{rule.risk:g}" for rule in manifest.exits)
        raise NoExitRule(
            f"`exit_risk` is {wanted.exit_risk:g}: this bundle has "
            + (f"rules for {known} only; ask for one of these or more." if known else "no rules for early exits."),
            risks=[rule.risk for rule in manifest.exits],
        )
    return Exit(rules[-1].thresholds, StoppedBy.EXIT_RISK)
