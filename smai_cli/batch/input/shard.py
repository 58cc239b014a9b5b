"""--shard: which lines of an input a run sends; `auto` takes it from the variables of the engine that started the run.

For every engine, K is the index modulo N, or N if that is 0: so arrays may go from 0 to N-1 or from 1 to N.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from smai_cli.errors import UsageError

# The placeholder for the number of the shard in a file name.
PLACE = "{shard}"
_FORM = "--shard K/N names it, K from 1 to N"
_DIGITS = re.compile(r"[0-9]{1,9}")
_AUTO = "auto"


class Shard(NamedTuple):
    """The lines `number`, `number` + `total`, ... of an input; `source` is the engine's name for the task, if any.

    Lines count from 1, including blank ones, so that a line keeps its shard when the file grows.
    """

    number: int
    total: int
    source: str = ""

    def __str__(self) -> str:
        """Return the value for --shard."""
        return f"{self.number}/{self.total}"


class _Engine(NamedTuple):
    """A scheduler that starts many tasks: its name, its word for a task, and its variables for the index and the count.

    `none` is the index that means that there is no array. `whole` lists variables and the values that they have only if
    the whole array was submitted; `ends` names those with the first and the last index.
    """

    name: str
    task: str
    its_index: str
    its_count: str | None = None
    none: str | None = None
    whole: tuple[tuple[str, tuple[str, ...]], ...] = ()
    ends: tuple[str, str] | None = None


_ENGINES = (
    _Engine(
        "Slurm",
        "Slurm array task",
        "SLURM_ARRAY_TASK_ID",
        "SLURM_ARRAY_TASK_COUNT",
        whole=(("SLURM_ARRAY_TASK_MIN", ("0", "1")), ("SLURM_ARRAY_TASK_STEP", ("1",))),
        ends=("SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX"),
    ),
    _Engine("srun", "srun task", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
    _Engine("Kubernetes", "Kubernetes index", "JOB_COMPLETION_INDEX"),
    _Engine("AWS Batch", "AWS Batch index", "AWS_BATCH_JOB_ARRAY_INDEX", "AWS_BATCH_JOB_ARRAY_SIZE"),
    _Engine("Cloud Run", "Cloud Run task", "CLOUD_RUN_TASK_INDEX", "CLOUD_RUN_TASK_COUNT"),
    _Engine("Google Batch", "Google Batch task", "BATCH_TASK_INDEX", "BATCH_TASK_COUNT"),
    _Engine(
        "Grid Engine",
        "Grid Engine task",
        "SGE_TASK_ID",
        "SGE_TASK_LAST",
        none="undefined",
        whole=(("SGE_TASK_FIRST", ("1",)), ("SGE_TASK_STEPSIZE", ("1",))),
    ),
    _Engine("LSF", "LSF index", "LSB_JOBINDEX", "LSB_JOBINDEX_END", none="0", whole=(("LSB_JOBINDEX_STEP", ("1",)),)),
    _Engine("PBS", "PBS index", "PBS_ARRAY_INDEX"),
    _Engine("Nomad", "Nomad index", "NOMAD_ALLOC_INDEX"),
    _Engine("GNU parallel", "GNU parallel job", "PARALLEL_SEQ"),
)


def parse_shard(text: str, environ: Mapping[str, str]) -> Shard:
    """Parse the value of `--shard`: K/N, auto/N or auto.

    Raises UsageError, which lists the variables that are set, if this does not name one shard of several.
    """
    number, slash, count = text.partition("/")
    if (slash and not _DIGITS.fullmatch(count)) or (not slash and text != _AUTO):
        raise UsageError(f"--shard {text!r} is not a shard", "write K/N, auto/N or auto")
    if slash and not int(count):
        raise UsageError(f"--shard {text} is not a shard", "N is at least 1")
    if number == _AUTO:
        return _detect_shard(int(count) if slash else None, environ)
    if not _DIGITS.fullmatch(number):
        raise UsageError(f"--shard {text!r} is not a shard", "write K/N, auto/N or auto")
    if not 1 <= int(number) <= int(count):
        raise UsageError(f"--shard {text} does not exist", "K is from 1 to N")
    return Shard(int(number), int(count))


def with_number(name: str, shard: Shard | None) -> str:
    """Return the file name with the number of the shard in it. Raises UsageError if it needs one and there is none."""
    if shard is None and PLACE in name:
        raise UsageError(f"{name} contains {PLACE}, but there is no shard", "give --shard as well")
    return name.replace(PLACE, str(shard.number)) if shard else name


def _detect_shard(count: int | None, environ: Mapping[str, str]) -> Shard:
    form = f"--shard {_AUTO}" if count is None else f"--shard {_AUTO}/{count}"
    engine = _engine(form, environ)
    index = _number(engine.its_index, environ)
    total = _whole_count(engine, environ) if count is None else count
    if index > total:
        raise UsageError(
            f"{form}: {engine.its_index}={index} is more than {total}, so two tasks would get one shard",
            f"an array goes from 0 to N-1, or from 1 to N; or {_FORM}",
        )
    return Shard(index % total or total, total, f"{engine.task} {index}")


def _engine(form: str, environ: Mapping[str, str]) -> _Engine:
    found = [engine for engine in _ENGINES if _has_array(engine, environ)]
    if not found:
        raise UsageError(f"{form} found no array: {_list_variables(environ)}", f"start it in one, or {_FORM}")
    if len(found) > 1:
        both = " and ".join(f"{engine.name} ({engine.its_index}={environ[engine.its_index]})" for engine in found)
        raise UsageError(f"{form} found {both}", f"unset the ones that do not apply, or {_FORM}")
    return found[0]


def _has_array(engine: _Engine, environ: Mapping[str, str]) -> bool:
    index = environ.get(engine.its_index)
    if index is None or index == engine.none:
        return False
    # Every batch script of Slurm has a task number (0), and so does a step of one task.
    return engine.name != "srun" or environ.get("SLURM_STEP_NUM_TASKS", "1") != "1"


def _list_variables(environ: Mapping[str, str]) -> str:
    known = (name for engine in _ENGINES for name in (engine.its_index, engine.its_count))
    names = [name for name in known if name and name in environ]
    if not names:
        return "no variable of a job scheduler is set"
    return f"only these variables are set: {', '.join(f'{name}={environ[name]}' for name in names)}"


def _number(name: str, environ: Mapping[str, str]) -> int:
    if not _DIGITS.fullmatch(environ[name]):
        raise UsageError(f"{name}={environ[name]!r} is not a number", _FORM)
    return int(environ[name])


def _whole_count(engine: _Engine, environ: Mapping[str, str]) -> int:
    """Return the engine's number of tasks. Raises UsageError if that may not be all."""
    again = f"--shard {_AUTO}/N says how many shards there are"
    seen = f"{engine.its_index}={environ[engine.its_index]}"
    if engine.its_count is None or not environ.get(engine.its_count):
        missing = f"{engine.its_count} is not set" if engine.its_count else f"{engine.name} gives no count"
        raise UsageError(f"{seen}, but {missing}", again)
    total = _number(engine.its_count, environ)
    seen = f"{seen}, {engine.its_count}={total}"
    for name, values in engine.whole:
        if environ.get(name, values[0]) not in values:
            raise UsageError(f"{seen}, {name}={environ[name]}: this is only part of an array", again)
    if total <= 1:
        raise UsageError(f"{seen}: a single task is not an array", again)
    if engine.ends and all(name in environ for name in engine.ends):
        first, last = (_number(name, environ) for name in engine.ends)
        if last - first + 1 != total:
            ends = ", ".join(f"{name}={environ[name]}" for name in engine.ends)
            raise UsageError(f"{seen}, {ends}: this is only part of an array", again)
    return total
