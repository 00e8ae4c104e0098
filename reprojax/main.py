"""The command line: ``python -m reprojax.main --config=FILE[:scale]``."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags
from ml_collections import ConfigDict, config_flags

from reprojax import config as rc
from reprojax.errors import InputError, ReprojaxError, choices, one_line
from reprojax.runtime import job

if TYPE_CHECKING:
    from reprojax.study.context import Context

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The study's config file, e.g. configs/quickstart.py, or FILE:scale."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "The folder of the results [runs/<config name>].")
_MODE = flags.DEFINE_enum(
    "mode",
    None,
    rc.MODES,
    "Where to stop: train, sample, score or study (everything). report draws the report again.",
)
_DRY_RUN = flags.DEFINE_boolean(
    "dry_run", False, "Print the cells with parameters, FLOPs and estimated time; run nothing."
)
_OVERWRITE = flags.DEFINE_boolean(
    "overwrite", False, "First remove another config's artefacts from the workdir."
)
_RETRY_FAILED = flags.DEFINE_boolean("retry_failed", False, "Try the cells that failed once more.")
_SHARD = flags.DEFINE_string(
    "shard",
    None,
    "i/n: work on every n-th cell from the i-th on, 0 <= i < n. The shard that ends last makes the "
    "scores.",
)
_WAIT_SECONDS = flags.DEFINE_float(
    "wait_seconds", None, "The seconds to wait for other workers of the folder [while they live]."
)

_DISTRIBUTED = flags.DEFINE_boolean(
    "distributed",
    False,
    "Join the job of several processes that this process belongs to, where JAX finds it by itself: "
    "SLURM, Open MPI, TPU pods, Kubernetes. Its processes train and sample each model together.",
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "Join a job that JAX cannot find by itself: host:port of its process 0, with a free port.",
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "With --coordinator: the number of processes."
)
_PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "With --coordinator: the number of this process, from 0."
)
_PLAN_DEVICES = flags.DEFINE_integer(
    "plan_devices",
    None,
    "Compile the largest cell's training step for this number of devices, which need not be there, "
    "and print its memory and collectives. Run nothing.",
)


def join_job() -> None:
    """Joins the job of several processes that the flags describe, if they describe one.

    Raises:
        InputError: The flags contradict each other, or there is no such job.
        LostPeerError: Another process did not start.
    """
    count, number = _NUM_PROCESSES.value, _PROCESS_ID.value
    if _COORDINATOR.value is None:
        for name, value in (("--num_processes", count), ("--process_id", number)):
            if value is not None:
                raise InputError(name, value, "must come with --coordinator=host:port")
        if _DISTRIBUTED.value:
            job.start()
        return
    job.parse_address(_COORDINATOR.value)
    if count is None or count < 1:
        raise InputError("--num_processes", count, "must be at least 1 with --coordinator")
    if number is None or not 0 <= number < count:
        requirement = f"must be 0 to {count - 1} with --coordinator, another on each process"
        raise InputError("--process_id", number, requirement)
    job.start(_COORDINATOR.value, count, number)


def run(command: str) -> None:
    """Runs what the flags ask for.

    Args:
        command: The command line, which the report shows.

    Raises:
        ReprojaxError: The run ends early. The error has the exit code.
    """
    config = _CONFIG.value
    # These come first, because both must precede the first use of a device, by `make_study`.
    if _PLAN_DEVICES.value is not None:
        job.pretend_devices(_PLAN_DEVICES.value)
    else:
        join_job()
    study = rc.make_study(config)
    shard = _parse_shard(_SHARD.value)
    # These imports are slow, so flags and most of the config are checked before them.
    from reprojax.analyses.table import ANALYSES, show_modules
    from reprojax.report.from_study import report_study
    from reprojax.runtime.console import Reporter
    from reprojax.study.planning.plan import print_plan
    from reprojax.study.planning.pod import print_pod_plan
    from reprojax.study.runner import prepare, run_study
    from reprojax.study.scores import read_scores
    from reprojax.study.workers import Share

    share = Share(*shard, retry_failed=_RETRY_FAILED.value, wait_seconds=_WAIT_SECONDS.value)
    reporter = Reporter(quiet=not job.is_first())
    try:
        prepared = prepare(study, ANALYSES)
    except InputError as error:
        raise _with_hint(error, config) from error
    if _PLAN_DEVICES.value is not None:
        print_pod_plan(prepared, reporter)
        return
    if _DRY_RUN.value:
        print_plan(prepared, reporter)
        return
    workdir = _WORKDIR.value or f"runs/{study.name}"
    reporter.say(f"workdir: {workdir}")
    mode = _MODE.value or config.mode
    if mode == "report" and read_scores(workdir, prepared.identity) is None:
        requirement = "has no scores of this config; run --mode=study or --mode=score first"
        raise InputError("workdir", workdir, requirement)
    last = {"study": "analyse", "report": "analyse"}.get(mode, mode)

    def report(context: Context) -> None:
        report_study(
            context,
            prepared.identity,
            command=command,
            title=config.report.title or study.name,
            again=mode == "report",
            shows=show_modules(),
        )

    run_study(
        prepared,
        workdir,
        last=last,
        overwrite=_OVERWRITE.value,
        reporter=reporter,
        share=share,
        report=report if mode in ("study", "report") else None,
    )
    job.release()


def _with_hint(error: InputError, config: ConfigDict) -> InputError:
    """Returns the error, with the config's hint if a data set is missing."""
    if config.hint and error.field in ("data.path", "data.dataset"):
        return InputError(error.field, error.value, f"{error.requirement}; {config.hint}")
    return error


def _parse_shard(text: str | None) -> tuple[int, int]:
    """Returns the two numbers of ``--shard=i/n``, or (0, 1) for all cells."""
    if text is None:
        return 0, 1
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal()):
        raise InputError("--shard", text, "must be i/n with 0 <= i < n, e.g. 0/4")
    return int(index), int(count)


def load_config(argv: list[str]) -> ConfigDict:
    """Loads the file of ``--config=FILE[:scale]``, without the overrides of other flags.

    Raises:
        InputError: The option or the file is missing, or the file has no such scale.
    """
    options = [a.partition("=")[2] for a in argv[1:] if a.lstrip("-").startswith("config=")]
    if not options:
        raise InputError("--config", None, "must be given, e.g. --config=configs/quickstart.py")
    path, _, scale = options[-1].partition(":")
    if not Path(path).is_file():
        raise InputError("--config", path, "must be an existing file, e.g. configs/quickstart.py")
    spec = importlib.util.spec_from_file_location("reprojax_config_file", path)
    if spec is None:
        raise InputError("--config", path, "must be a Python file with get_config()")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise InputError("--config", path, "must be a Python file with get_config()")
    try:
        return module.get_config(scale)
    except (AttributeError, KeyError, TypeError) as error:  # a field that the schema lacks
        raise InputError("--config", path, f"must be a config of the schema; {error}") from error


def parse_flags(argv: list[str]) -> None:
    """Parses the command line.

    Raises:
        InputError: A flag or config field is unknown, or a value has the wrong type.
    """
    config = load_config(argv)
    overrides = [a.lstrip("-") for a in argv[1:] if a.lstrip("-").startswith("config.")]
    for override in overrides:
        _require_field(config, *override.removeprefix("config.").partition("=")[::2])
    try:
        rest = flags.FLAGS(argv)
    except (flags.Error, TypeError, ValueError) as error:
        text = str(error)
        for override in overrides:
            name, _, value = override.removeprefix("config.").partition("=")
            if f"config.{name}=" in text or f"config.{name}:" in text:
                kind = _type_of(config, name)
                raise InputError(name, value, f"must be of type {kind.__name__}") from error
        raise InputError("command line", None, text) from error
    if len(rest) > 1:
        raise InputError("command line", rest[1], "must be an option, --name=value")


def _require_field(config: ConfigDict, field: str, value: str) -> None:
    section = config
    for part in field.split("."):
        names = section.keys() if isinstance(section, ConfigDict) else ()
        if part not in names:
            requirement = f"there is no such field; {part!r} {choices(names, part)}"
            raise InputError(field, value, requirement)
        section = section[part]


def _type_of(config: ConfigDict, field: str) -> type:
    *sections, name = field.split(".")
    for section in sections:
        config = config[section]
    return config.get_type(name)


def main(argv: list[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    argv = list(sys.argv if argv is None else argv)
    if any(a in ("--help", "-help", "--helpfull", "--helpshort", "-h") for a in argv[1:]):
        print(f"{__doc__}\n\nflags:\n{flags.FLAGS.module_help(sys.modules[__name__])}")
        return 0
    try:
        parse_flags(argv)
        run("python -m reprojax.main " + " ".join(argv[1:]))
        job.end()
    except ReprojaxError as error:
        return job.abandon(error.exit_code, one_line(str(error), 2000))
    except KeyboardInterrupt:
        return job.abandon(130, "interrupted; the same command resumes")
    except Exception as error:
        job.note_failure(error)
        traceback.print_exc()
        return job.abandon(1, one_line(f"{type(error).__name__}: {error}"), say=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
