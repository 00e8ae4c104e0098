"""Starts several workers on one study: on this machine, or as a SLURM array.

    python launch/sweep.py --config=configs/grid.py:lab --workdir=DIR --workers=4
    python launch/sweep.py --config=configs/grid.py --workdir=/shared/grid --workers=30 \
        --executor=slurm --partition=gpu --gpus=1 --cpus=8 --mem=64 --time=12:00:00 -- --mode=study

Needs ``pip install 'reprojax[launch]'`` (submitit). Every worker runs the same ``python -m
reprojax.main --config=... --workdir=...`` with the flags that follow ``--``. The workers share the
cells among themselves, so any number will do, and you can add workers while others run. Run the
same command again to resume. On SLURM the workdir must be on a file system that all nodes share.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from reprojax.errors import InputError, ReprojaxError, one_line, require_number

LOCAL_MINUTES = 60 * 24 * 365  # submitit's default stops a local job after two minutes
MAX_REQUEUES = 1000  # how often a job may reach its time limit and continue
STOP_SECONDS = 120  # how long SLURM may take to end a job after it has asked it to stop
SLURM_OPTIONS = ("partition", "account", "qos", "constraint", "time", "mem", "setup")
INTERRUPTED = 130
CAN_PIN = hasattr(os, "sched_setaffinity")
RETRY = "--retry_failed"
# Runs a command that ignores USR2: SLURM sends it to every process of the job to announce a
# preemption, and it would kill main.
IGNORE_USR2 = ("/bin/sh", "-c", 'trap "" USR2; exec "$@"', "sh")


class Worker:
    """A worker that runs main in a process of its own and stops it when the job has to end.

    submitit calls `checkpoint` when the preemption signal arrives (USR2, which ``sbatch --signal``
    sends before the time limit too), queues what it returns and ends.

    Args:
        command: The command line of main.
        devices: The value of CUDA_VISIBLE_DEVICES for main, or None to keep the scheduler's.
        grace: The seconds that main has to save.
        cores: The cores that main may use, or None for all.
    """

    def __init__(
        self,
        command: list[str],
        devices: str | None,
        grace: float,
        cores: list[int] | None = None,
    ):
        self.command, self.devices, self.grace, self.cores = command, devices, grace, cores
        self._process: subprocess.Popen | None = None
        self._term_sent = False

    def __call__(self) -> int:
        """Runs main and returns 0.

        Raises:
            RuntimeError: main ended with another exit code. The error makes the SLURM job fail.
        """
        signal.signal(signal.SIGTERM, self._on_term)
        env = dict(os.environ)
        if self.devices is not None:
            env["CUDA_VISIBLE_DEVICES"] = self.devices
        elif os.environ.get("SUBMITIT_EXECUTOR") == "local":
            env.pop("CUDA_VISIBLE_DEVICES", None)  # submitit hides the GPUs not requested from it
        if self.cores:
            os.sched_setaffinity(0, self.cores)  # main inherits it
        print("$", " ".join(self.command), flush=True)
        self._process = subprocess.Popen([*IGNORE_USR2, *self.command], env=env)
        try:
            while self._alive():
                time.sleep(0.5)
            code = self._process.wait()
            if code == INTERRUPTED and self._on_slurm():
                time.sleep(STOP_SECONDS)  # a result now would end a job that SLURM requeues
        finally:
            self._stop()
        print(f"main ended with exit code {code}", flush=True)
        if code:
            raise RuntimeError(f"main ended with exit code {code}")
        return code

    def checkpoint(self):
        """Stops main, which saves, and returns the submission of a worker that continues."""
        import submitit

        self._stop()
        # Failed cells are retried once, not again after every requeue.
        command = [word for word in self.command if word.partition("=")[0] != RETRY]
        return submitit.helpers.DelayedSubmission(
            Worker(command, self.devices, self.grace, self.cores)
        )

    def _on_term(self, number, frame) -> None:
        # SLURM sends SIGTERM to main too, and a second one would end main before it has saved.
        if self._on_slurm():
            self._term_sent = True
        elif self._process:
            self._terminate()

    def _stop(self) -> None:
        deadline = time.monotonic() + self.grace
        if self._process and self._alive():
            self._terminate()
        while self._process and self._alive() and time.monotonic() < deadline:
            time.sleep(0.1)

    def _terminate(self) -> None:
        if not self._term_sent:
            self._term_sent = True
            self._process.terminate()

    def _alive(self) -> bool:
        # `Popen.poll` takes a lock, so a signal handler that interrupts it must not call it.
        try:
            flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
            return os.waitid(os.P_PID, self._process.pid, flags) is None
        except ChildProcessError:
            return False

    @staticmethod
    def _on_slurm() -> bool:
        return os.environ.get("SUBMITIT_EXECUTOR") == "slurm"


class _Parser(argparse.ArgumentParser):
    """A parser that raises InputError, so that a mistake is one line, as in main."""

    def error(self, message: str) -> None:
        raise InputError("command line", None, message)


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the options; those of SLURM have SLURM's names."""
    p = _Parser(
        prog="launch/sweep.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    p.add_argument("--config", required=True, help="config file of the study, FILE[:scale]")
    p.add_argument("--workdir", help="folder of the results [runs/<config name>]")
    p.add_argument("--workers", type=int, default=2, help="number of workers [2]")
    p.add_argument(
        "--executor",
        choices=("local", "slurm"),
        default="local",
        help="start workers on this machine, or as a SLURM array [local]",
    )
    p.add_argument("--logs", help="folder of the logs [<workdir>-logs]")
    p.add_argument(
        "--wait", action="store_true", help="wait for the workers; exit with the worst exit code"
    )
    p.add_argument(
        "--gpus", type=int, help="GPUs per worker; local workers share them out in order"
    )
    p.add_argument("--cpus", type=int, help="cores per worker [local: an equal share of all]")
    p.add_argument("--partition", help="SLURM's option, as are those below")
    p.add_argument("--account", help="SLURM's option")
    p.add_argument("--qos", help="SLURM's option")
    p.add_argument("--constraint", help="SLURM's option")
    p.add_argument("--time", help="time limit of a job: minutes, H:MM:SS or D-HH:MM:SS [60]")
    p.add_argument("--mem", type=float, help="memory per worker in GB")
    p.add_argument(
        "--setup", action="append", help="shell line to run before main; may be repeated"
    )
    p.add_argument(
        "--signal_delay", type=int, default=120, help="seconds to save in before the limit [120]"
    )
    p.add_argument("main_flags", nargs="*", metavar="-- FLAG", help="flags of reprojax.main")
    return p


def parse(argv: list[str]) -> argparse.Namespace:
    """Parses and checks the command line.

    Raises:
        InputError: An option has a wrong value or is missing; the message names it.
    """
    own, dashes, extra = argv, [], []
    if "--" in argv:
        at = argv.index("--")
        own, dashes, extra = argv[:at], ["--"], argv[at + 1 :]
    options = parser().parse_args([*own, *dashes, *extra])
    if len(options.main_flags) != len(extra):
        word = options.main_flags[0]
        raise InputError("command line", word, "must be an option; flags of main follow after --")
    for flag in extra:
        name = flag.lstrip("-").partition("=")[0]
        if not flag.startswith("--") or name in ("config", "workdir"):
            requirement = "must be a flag --name=value other than --config and --workdir, after --"
            raise InputError("command line", flag, requirement)
    require_number("--workers", options.workers, at_least=1)
    require_number("--signal_delay", options.signal_delay, at_least=1)
    for name in ("gpus", "cpus", "mem"):
        if getattr(options, name) is not None:
            require_number(f"--{name}", getattr(options, name), above=0)
    for name in SLURM_OPTIONS:
        if options.executor != "slurm" and getattr(options, name) is not None:
            requirement = "works only with --executor=slurm"
            raise InputError(f"--{name}", getattr(options, name), requirement)
    options.minutes = minutes(options.time or "60")
    if 60 * options.minutes <= options.signal_delay:
        requirement = f"must be more than the {options.signal_delay} s of --signal_delay"
        raise InputError("--time", options.time, requirement)
    return options


def minutes(text: str) -> int:
    """Returns the minutes of a time as SLURM writes it: 90, 1:30:00 or 2-12:00:00.

    Raises:
        InputError: The text is not such a time.
    """
    match = re.fullmatch(r"(?:(?:(\d+)-)?(\d+):(\d\d):(\d\d))|(\d+)", text)
    if not match:
        raise InputError("--time", text, "must be minutes, H:MM:SS or D-HH:MM:SS")
    days, hours, mins, seconds, alone = (int(part or 0) for part in match.groups())
    total = alone + 1440 * days + 60 * hours + mins + (seconds > 0)
    require_number("--time", total, at_least=1)
    return total


def check_study(options: argparse.Namespace) -> str:
    """Reads the config, so that a mistake fails here and not in the jobs; returns its name."""
    from reprojax import config as rc
    from reprojax.main import load_config

    config = load_config(["sweep", f"--config={options.config}"])
    return rc.make_study(config).name


def visible_devices(options: argparse.Namespace, worker: int) -> str | None:
    """Returns CUDA_VISIBLE_DEVICES for a local worker, or None if it is SLURM's or unset."""
    own = os.environ.get("CUDA_VISIBLE_DEVICES")
    if options.executor == "slurm" or not options.gpus:
        return None if options.executor == "slurm" else own
    first, count = worker * options.gpus, options.gpus
    ids = own.split(",") if own else [str(i) for i in range(options.workers * count)]
    if len(ids) < options.workers * count:
        requirement = f"CUDA_VISIBLE_DEVICES has only {len(ids)} for {options.workers} workers"
        raise InputError("--gpus", count, requirement)
    return ",".join(ids[first : first + count])


def own_cores(options: argparse.Namespace, worker: int) -> list[int] | None:
    """Returns the cores of a local worker, or None if SLURM assigns them or there are too few.

    XLA runs a thread for each core that it may use, so workers that share all cores slow each other
    down.
    """
    if options.executor == "slurm" or (options.cpus is None and not CAN_PIN):
        return None
    if not CAN_PIN:
        raise InputError("--cpus", options.cpus, "works for local workers only on Linux")
    cores = sorted(os.sched_getaffinity(0))
    count, workers = len(cores), options.workers
    if options.cpus is None:
        share = cores[worker * count // workers : (worker + 1) * count // workers]
        return share if count >= workers else None
    if options.cpus * workers > count:
        requirement = f"there are only {count} cores for {workers} workers"
        raise InputError("--cpus", options.cpus, requirement)
    return cores[worker * options.cpus : (worker + 1) * options.cpus]


def make_executor(options: argparse.Namespace, logs: Path, name: str):
    """Returns the submitit executor.

    Raises:
        InputError: submitit or SLURM is not installed.
    """
    try:
        import submitit
    except ImportError as error:
        requirement = "needs submitit; install it with pip install 'reprojax[launch]'"
        raise InputError("--executor", options.executor, requirement) from error
    if options.executor == "local":
        executor = submitit.LocalExecutor(folder=logs)
        executor.update_parameters(timeout_min=LOCAL_MINUTES)
        return executor
    try:
        executor = submitit.SlurmExecutor(folder=logs, max_num_timeout=MAX_REQUEUES)
    except RuntimeError as error:
        requirement = "needs a machine with SLURM's sbatch and srun"
        raise InputError("--executor", "slurm", requirement) from error
    parameters = {
        "partition": options.partition,
        "account": options.account,
        "qos": options.qos,
        "constraint": options.constraint,
        "gpus_per_node": options.gpus,
        "cpus_per_task": options.cpus,
        "mem": f"{round(1024 * options.mem)}M" if options.mem else None,
        "setup": options.setup,
    }
    executor.update_parameters(
        job_name=name,
        time=options.minutes,
        signal_delay_s=options.signal_delay,
        array_parallelism=options.workers,
        additional_parameters={"requeue": True},
        **{k: v for k, v in parameters.items() if v is not None},
    )
    return executor


def submit(options: argparse.Namespace) -> list:
    """Starts the workers, prints how to follow them and returns submitit's jobs."""
    name = check_study(options)
    workdir = Path(options.workdir or f"runs/{name}").absolute()
    # Beside the workdir, not in it: main accepts only an empty folder or one of its own.
    logs = Path(options.logs or f"{workdir}-logs").absolute()
    path, colon, scale = options.config.partition(":")
    command = [sys.executable, "-m", "reprojax.main"]
    command += [f"--config={Path(path).absolute()}{colon}{scale}", f"--workdir={workdir}"]
    grace = max(options.signal_delay - 10, 1)
    workers = [
        Worker(
            [*command, *options.main_flags],
            visible_devices(options, i),
            grace,
            own_cores(options, i),
        )
        for i in range(options.workers)
    ]
    executor = make_executor(options, logs, name)
    with executor.batch():
        jobs = [executor.submit(worker) for worker in workers]
    ids = [job.job_id for job in jobs]
    array = ids[0].partition("_")[0]
    stop = f"scancel {array}" if options.executor == "slurm" else f"kill {' '.join(ids)}"
    print(f"workdir: {workdir}")
    print(f"{len(jobs)} workers ({options.executor}): {' '.join(ids)}")
    print(f"follow:  tail -F {logs}/{array if options.executor == 'slurm' else ''}*_log.out")
    print(f"stop:    {stop}   (saves; run the same command to resume)", flush=True)
    return jobs


def wait(jobs: list) -> int:
    """Waits for the workers, prints how each ended and returns the largest exit code."""
    codes = []
    for job in jobs:
        error = job.exception()
        numbers = re.findall(r"main ended with exit code (-?\d+)", str(error or ""))
        codes.append(0 if error is None else abs(int(numbers[-1])) if numbers else 1)
        print(f"{job.job_id}: exit code {codes[-1]}", flush=True)
    return max(codes)


def main(argv: list[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    try:
        options = parse(list(sys.argv[1:] if argv is None else argv))
        jobs = submit(options)
        return wait(jobs) if options.wait else 0
    except ReprojaxError as error:
        print(f"sweep: {one_line(str(error), 2000)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("sweep: no longer waiting", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
