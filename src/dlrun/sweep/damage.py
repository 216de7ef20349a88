"""Check the content of sweep.json before any of it is used, since the folder may be damaged or a stranger's."""

from dataclasses import asdict

from dlrun.errors import check_state
from dlrun.output.folders import NAME
from dlrun.sweep.job import Job
from dlrun.sweep.rows import is_number

KINDS = {
    **dict.fromkeys(("version", "started", "cwd", "study", "id", "configs"), str),
    **dict.fromkeys(("command", "flags", "arguments", "goals"), list),
    **{"owner": dict, "total": int, "elsewhere": int},
}
JOB_KINDS = {
    **{"number": int, "overrides": list, "status": str, "code": int | None, "seconds": int | float | None},
    **{"values": dict, "trial": int | None, "pid": int | None, "stack": int | None},
    **dict.fromkeys(("error", "worker", "born", "attempt"), str | None),
}


def check_facts(facts: dict) -> None:
    """Raise ValueError if no sweep can have written these facts."""
    check_state(facts, KINDS)
    words = [*facts["command"], *facts["flags"], *facts["arguments"]]
    if not all(isinstance(word, str) and "\0" not in word for word in words):
        raise ValueError("its command line was edited")
    for name, mode in facts["goals"]:
        if not isinstance(name, str) or mode not in ("max", "min", None):
            raise ValueError("its goals were edited")
    if not 0 <= facts["elsewhere"] < 2**63 or not 0 <= facts["total"] < 2**63:
        raise ValueError(f"total: {facts['total']}, elsewhere: {facts['elsewhere']}: expected counts")


def check_job(job: Job, number: int) -> None:
    """Raise ValueError if no sweep can have written this job."""
    check_state(asdict(job), JOB_KINDS)
    if job.number != number or not all(isinstance(word, str) and "\0" not in word for word in job.overrides):
        raise ValueError(f"job {number} was edited")
    if not all(text.isprintable() for text in (job.status, *job.values)):
        raise ValueError(f"job {number} has a status or a metric that is not a word")
    if not all(value is None or is_number(value) for value in (*job.values.values(), job.seconds, job.code)):
        raise ValueError(f"job {number} has a value that is not a number")
    if job.stack is not None and not 0 <= job.stack <= number:
        raise ValueError(f"job {number}: stack {job.stack}: expected the number of an earlier job")
    for kind in ("worker", "attempt"):
        name = getattr(job, kind)
        if name is not None and not NAME.fullmatch(name):
            raise ValueError(f"job {number}: {kind} {name[:80]!r} is not a name that sweeps use")
