"""The command line: ``python -m reprojax.main --config=FILE[:scale]``."""

from __future__ import annotations

import sys
import traceback

from absl import flags
from ml_collections import config_flags

from reprojax import config as rc
from reprojax.errors import InputError, ReprojaxError, choices, one_line

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


def run(command: str) -> None:
    """Runs what the flags ask for.

    Args:
        command: the command line to cite in the report.

    Raises:
        ReprojaxError: with the exit code to end with.
    """
    config = _CONFIG.value
    if config is None:
        raise InputError("--config", None, "a config file, e.g. --config=configs/quickstart.py")
    study = rc.make_study(config)
    # Late: the flags, and most mistakes, are checked before what is slow to import.
    from reprojax.report.from_study import report_study
    from reprojax.study.plan import print_plan
    from reprojax.study.progress import Reporter
    from reprojax.study.runner import prepare, run_study

    reporter = Reporter()
    prepared = prepare(study)
    if _DRY_RUN.value:
        print_plan(prepared, reporter)
        return
    workdir = _WORKDIR.value or f"runs/{study.name}"
    reporter.say(f"workdir: {workdir}")
    mode = _MODE.value or config.mode
    last = {"study": "score", "report": "score"}.get(mode, mode)
    context = run_study(prepared, workdir, last=last, overwrite=_OVERWRITE.value, reporter=reporter)
    if mode in ("study", "report"):
        report_study(
            context,
            prepared.identity,
            command=command,
            title=config.report.title or study.name,
            columns=config.report.columns,
            again=mode == "report",
        )


def parse_flags(argv: list[str]) -> None:
    """Parses the command line.

    Raises:
        InputError: an unknown flag or config field, or a value of the wrong type.
    """
    try:
        rest = flags.FLAGS(argv)
    except InputError:
        raise
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise _flag_error(argv, error) from error
    if len(rest) > 1:
        raise InputError("command line", rest[1], "options only, each as --name=value")


def _flag_error(argv: list[str], error: Exception) -> InputError:
    """Words a parse error: the option at fault, and the nearest name where it is unknown."""
    text = one_line(str(error), 400)
    for argument in argv[1:]:
        name, _, value = argument.lstrip("-").partition("=")
        if not name.startswith("config."):
            continue
        config = _CONFIG.value
        field = name.removeprefix("config.")
        for part in field.split("."):
            if not hasattr(config, "keys") or part not in config:
                known = config.keys() if hasattr(config, "keys") else ()
                return InputError(field, value, f"no such config field; {choices(known, part)}")
            config = config[part]
        if field in text:
            return InputError(field, value, f"it must be of type {type(config).__name__}")
    return InputError("command line", " ".join(argv[1:]), text)


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; gives the exit code."""
    argv = list(sys.argv if argv is None else argv)
    if any(a in ("--help", "-help", "--helpfull", "--helpshort", "-h") for a in argv[1:]):
        print(f"{__doc__}\n\nflags:\n{flags.FLAGS.module_help(sys.modules[__name__])}")
        return 0
    try:
        parse_flags(argv)
        run("python -m reprojax.main " + " ".join(argv[1:]))
    except ReprojaxError as error:
        print(f"reprojax: {one_line(str(error), 2000)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("reprojax: interrupted; the same command resumes", file=sys.stderr)
        return 130
    except Exception:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
