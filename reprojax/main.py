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
    from reprojax.study.stages import Context

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file of the study, e.g. configs/quickstart.py; FILE:scale for a scale."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the results [runs/<config name>].")
_MODE = flags.DEFINE_enum(
    "mode",
    None,
    rc.MODES,
    "How far to go: study (everything), or up to train, sample or score; report draws again.",
)
_DRY_RUN = flags.DEFINE_boolean(
    "dry_run", False, "Print the cells with parameters, FLOPs and estimated time; run nothing."
)
_OVERWRITE = flags.DEFINE_boolean(
    "overwrite", False, "Remove another config's artefacts from the workdir first."
)
_RETRY_FAILED = flags.DEFINE_boolean(
    "retry_failed", False, "Forget first which cells failed, so that they are tried again."
)
_SHARD = flags.DEFINE_string(
    "shard",
    None,
    "i/n: do only every n-th cell from the i-th (0 <= i < n) on; whichever shard finds all cells "
    "done makes the scores.",
)
_WAIT_SECONDS = flags.DEFINE_float(
    "wait_seconds", None, "Wait so long in all for other workers of the folder [as they live]."
)

_DISTRIBUTED = flags.DEFINE_boolean(
    "distributed",
    False,
    "Join the job that this process is part of, where JAX finds it by itself: SLURM, Open MPI, TPU "
    "pods, Kubernetes. All its processes train and sample each model together.",
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "Join a job that JAX cannot find by itself: host:port of its process 0, where this port and "
    "the next are free.",
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "With --coordinator: processes of the job."
)
_PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "With --coordinator: number of this process, from 0."
)
_PLAN_DEVICES = flags.DEFINE_integer(
    "plan_devices",
    None,
    "Compile the largest cell's train step for so many devices, print its memory and collectives; "
    "run nothing. Needs none of the devices.",
)


def join_job() -> None:
    """Joins the job of several processes that the flags describe, if they do.

    Raises:
        InputError: flags that do not go together, or no such job.
        LostPeerError: another process did not come.
    """
    count, number = _NUM_PROCESSES.value, _PROCESS_ID.value
    if _COORDINATOR.value is None:
        for name, value in (("--num_processes", count), ("--process_id", number)):
            if value is not None:
                raise InputError(name, value, "only with --coordinator=host:port")
        if _DISTRIBUTED.value:
            job.start()
        return
    job.parse_address(_COORDINATOR.value)
    if count is None or count < 1:
        raise InputError("--num_processes", count, "with --coordinator it must be at least 1")
    if number is None or not 0 <= number < count:
        allowed = f"with --coordinator it must be 0 to {count - 1}, another on each process"
        raise InputError("--process_id", number, allowed)
    job.start(_COORDINATOR.value, count, number)


def run(command: str) -> None:
    """Runs what the flags ask for.

    Args:
        command: the command line to cite in the report.

    Raises:
        ReprojaxError: with the exit code to end with.
    """
    config = _CONFIG.value
    # First: neither can be done once a device was touched, as making a study does.
    if _PLAN_DEVICES.value is not None:
        job.pretend_devices(_PLAN_DEVICES.value)
    else:
        join_job()
    study = rc.make_study(config)
    shard = _parse_shard(_SHARD.value)
    # Late: the flags, and most mistakes, are checked before what is slow to import.
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
        prepared = prepare(study)
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
        allowed = "a folder in which this config was scored: first --mode=study or --mode=score"
        raise InputError("workdir", workdir, allowed)
    last = {"study": "analyse", "report": "analyse"}.get(mode, mode)

    def report(context: Context) -> None:
        report_study(
            context,
            prepared.identity,
            command=command,
            title=config.report.title or study.name,
            again=mode == "report",
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
    """The error, with the config's hint where a data set is missing."""
    if config.hint and error.field in ("data.path", "data.dataset"):
        return InputError(error.field, error.value, f"{error.requirement}; {config.hint}")
    return error


def _parse_shard(text: str | None) -> tuple[int, int]:
    """The two numbers of ``--shard=i/n``; all cells without one."""
    if text is None:
        return 0, 1
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal()):
        raise InputError("--shard", text, "must be i/n with 0 <= i < n, e.g. 0/4")
    return int(index), int(count)


def load_config(argv: list[str]) -> ConfigDict:
    """Loads the file of ``--config=FILE[:scale]`` as it is before any override.

    Raises:
        InputError: no such option, no such file, or the file refuses the scale.
    """
    options = [a.partition("=")[2] for a in argv[1:] if a.lstrip("-").startswith("config=")]
    if not options:
        raise InputError("--config", None, "a config file, e.g. --config=configs/quickstart.py")
    path, _, scale = options[-1].partition(":")
    if not Path(path).is_file():
        raise InputError("--config", path, "an existing file, e.g. configs/quickstart.py")
    spec = importlib.util.spec_from_file_location("reprojax_config_file", path)
    if spec is None:
        raise InputError("--config", path, "a Python file with get_config()")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise InputError("--config", path, "a Python file with get_config()")
    try:
        return module.get_config(scale)
    except (AttributeError, KeyError, TypeError) as error:  # a field that the schema lacks
        raise InputError("--config", path, f"a config of the schema ({error})") from error


def parse_flags(argv: list[str]) -> None:
    """Parses the command line.

    Raises:
        InputError: an unknown flag or config field, or a value of the wrong type.
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
        raise InputError("command line", " ".join(argv[1:]), text) from error
    if len(rest) > 1:
        raise InputError("command line", rest[1], "options only, each as --name=value")


def _require_field(config: ConfigDict, field: str, value: str) -> None:
    place = config
    for part in field.split("."):
        known = place.keys() if isinstance(place, ConfigDict) else ()
        if part not in known:
            raise InputError(field, value, f"no such config field; {choices(known, part)}")
        place = place[part]


def _type_of(config: ConfigDict, field: str) -> type:
    *sections, name = field.split(".")
    for section in sections:
        config = config[section]
    return config.get_type(name)


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; gives the exit code."""
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
