"""Starts several workers on one study: on this machine, or as a SLURM array.

    python launch/sweep.py --config=configs/grid.py:lab --workdir=DIR --workers=4
    python launch/sweep.py --config=configs/grid.py --workdir=/shared/grid --workers=30 \
        --executor=slurm --partition=gpu --gpus=1 --cpus=8 --mem=64 --time=12:00:00 -- --mode=study

Needs ``pip install 'reprojax[launch]'`` (submitit). Every worker runs the same ``python -m
reprojax.main --config=... --workdir=...``; what follows ``--`` goes to it unchanged. The workers
share the cells among themselves, so their number may be anything, and workers may be added while
others run. The same command again goes on where everything was. On SLURM the workdir must be on a
file system that all nodes share.
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

LOCAL_MINUTES = 60 * 24 * 365  # submitit stops a local job after two minutes unless told otherwise
REQUEUES = 1000  # times that a job may run out of its time limit and go on
TAKEN_AWAY_SECONDS = 120  # how long SLURM may take to end a job after it has asked it to stop
SLURM_OPTIONS = ("partition", "account", "qos", "constraint", "time", "mem", "setup")
INTERRUPTED = 130
CAN_PIN = hasattr(os, "sched_setaffinity")
RETRY = "--retry_failed"
# SLURM sends the preemption signal to every process of the job, and it would kill main.
DEAF = ("/bin/sh", "-c", 'trap "" USR2; exec "$@"', "sh")


class Worker:
    """One worker: runs main in a process of its own, and asks it to stop when the job must go.

    submitit calls `checkpoint` when the preemption signal comes (USR2, which ``sbatch --signal``
    sends before the time limit too), puts what it returns in the queue again and ends.

    Args:
        command: of main.
        devices: CUDA_VISIBLE_DEVICES of main, or None to leave it as the scheduler set it.
        grace: seconds that main has to save.
        cores: that main keeps to, or None for any.
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
        self._asked = False

    def __call__(self) -> int:
        """Gives 0, or raises RuntimeError with main's exit code, so that SLURM sees a failure."""
        signal.signal(signal.SIGTERM, self._on_term)
        env = dict(os.environ)
        if self.devices is not None:
            env["CUDA_VISIBLE_DEVICES"] = self.devices
        elif os.environ.get("SUBMITIT_EXECUTOR") == "local":
            env.pop("CUDA_VISIBLE_DEVICES", None)  # submitit hides every GPU that was not asked for
        if self.cores:
            os.sched_setaffinity(0, self.cores)  # main inherits it
        print("$", " ".join(self.command), flush=True)
        self._process = subprocess.Popen([*DEAF, *self.command], env=env)
        try:
            while self._alive():
                time.sleep(0.5)
            code = self._process.wait()
            if code == INTERRUPTED and self._on_slurm():
                time.sleep(TAKEN_AWAY_SECONDS)  # a result now would end a job that is requeued
        finally:
            self._stop()
        print(f"main ended with exit code {code}", flush=True)
        if code:
            raise RuntimeError(f"main ended with exit code {code}")
        return code

    def checkpoint(self):
        """Stops main, which saves; gives what is to be run when the job comes up again."""
        import submitit

        self._stop()
        # What failed was tried again at the start: not once more at each requeue.
        command = [word for word in self.command if word.partition("=")[0] != RETRY]
        return submitit.helpers.DelayedSubmission(
            Worker(command, self.devices, self.grace, self.cores)
        )

    def _on_term(self, number, frame) -> None:
        # SLURM asks every process of the job, main included, and a second one ends main at once.
        if self._on_slurm():
            self._asked = True
        elif self._process:
            self._ask()

    def _stop(self) -> None:
        deadline = time.monotonic() + self.grace
        if self._process and self._alive():
            self._ask()
        while self._process and self._alive() and time.monotonic() < deadline:
            time.sleep(0.1)

    def _ask(self) -> None:
        if not self._asked:
            self._asked = True
            self._process.terminate()

    def _alive(self) -> bool:
        # `Popen.poll` holds a lock that a signal handler, which may interrupt it, cannot take.
        try:
            how = os.WEXITED | os.WNOHANG | os.WNOWAIT
            return os.waitid(os.P_PID, self._process.pid, how) is None
        except ChildProcessError:
            return False

    @staticmethod
    def _on_slurm() -> bool:
        return os.environ.get("SUBMITIT_EXECUTOR") == "slurm"


class _Parser(argparse.ArgumentParser):
    """Says a mistake in one line, as main does."""

    def error(self, message: str) -> None:
        raise InputError("command line", " ".join(sys.argv[1:]), message)


def parser() -> argparse.ArgumentParser:
    """The options; those of SLURM have its names."""
    p = _Parser(
        prog="launch/sweep.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    p.add_argument("--config", required=True, help="config file of the study, FILE[:scale]")
    p.add_argument("--workdir", help="folder of the results [runs/<config name>]")
    p.add_argument("--workers", type=int, default=2, help="how many [2]")
    p.add_argument("--executor", choices=("local", "slurm"), default="local", help="where [local]")
    p.add_argument("--logs", help="folder of the logs [<workdir>-logs]")
    p.add_argument("--wait", action="store_true", help="wait, and end with the worst exit code")
    p.add_argument("--gpus", type=int, help="per worker; local: worker i gets the i-th so many")
    p.add_argument("--cpus", type=int, help="cores per worker [local: an equal share of all]")
    p.add_argument("--partition", help="SLURM only, as are those below")
    p.add_argument("--account")
    p.add_argument("--qos")
    p.add_argument("--constraint")
    p.add_argument("--time", help="limit of a job: minutes, H:MM:SS or D-HH:MM:SS [60]")
    p.add_argument("--mem", type=float, help="per worker, in GB")
    p.add_argument("--setup", action="append", help="shell line before main; may be repeated")
    p.add_argument("--signal_delay", type=int, default=120, help="seconds to save in [120]")
    p.add_argument("main_flags", nargs="*", metavar="-- FLAG", help="flags of reprojax.main")
    return p


def parse(argv: list[str]) -> argparse.Namespace:
    """Parses and checks the command line.

    Raises:
        InputError: naming the option.
    """
    own, mark, extra = argv, [], []
    if "--" in argv:
        at = argv.index("--")
        own, mark, extra = argv[:at], ["--"], argv[at + 1 :]
    options = parser().parse_args([*own, *mark, *extra])
    if len(options.main_flags) != len(extra):
        raise InputError("command line", options.main_flags[0], "options; main's follow after --")
    for flag in extra:
        name = flag.lstrip("-").partition("=")[0]
        if not flag.startswith("--") or name in ("config", "workdir"):
            allowed = "after -- only flags as --name=value, without --config and --workdir"
            raise InputError("command line", flag, allowed)
    require_number("--workers", options.workers, at_least=1)
    require_number("--signal_delay", options.signal_delay, at_least=1)
    for name in ("gpus", "cpus", "mem"):
        if getattr(options, name) is not None:
            require_number(f"--{name}", getattr(options, name), above=0)
    for name in SLURM_OPTIONS:
        if options.executor != "slurm" and getattr(options, name) is not None:
            raise InputError(f"--{name}", getattr(options, name), "only with --executor=slurm")
    options.minutes = minutes(options.time or "60")
    if 60 * options.minutes <= options.signal_delay:
        allowed = f"more than the {options.signal_delay} s of --signal_delay"
        raise InputError("--time", options.time, allowed)
    return options


def minutes(text: str) -> int:
    """Minutes of a time as SLURM writes it: 90, 1:30:00 or 2-12:00:00.

    Raises:
        InputError: it is none.
    """
    match = re.fullmatch(r"(?:(?:(\d+)-)?(\d+):(\d\d):(\d\d))|(\d+)", text)
    if not match:
        raise InputError("--time", text, "minutes, H:MM:SS or D-HH:MM:SS")
    days, hours, mins, seconds, alone = (int(part or 0) for part in match.groups())
    total = alone + 1440 * days + 60 * hours + mins + (seconds > 0)
    require_number("--time", total, at_least=1)
    return total


def check_study(options: argparse.Namespace) -> str:
    """Reads the config as main will, so that a mistake costs no job; gives the study's name."""
    from reprojax import config as rc
    from reprojax.main import load_config

    config = load_config(["sweep", f"--config={options.config}"])
    return rc.make_study(config).name


def visible_devices(options: argparse.Namespace, worker: int) -> str | None:
    """CUDA_VISIBLE_DEVICES of a local worker; None where SLURM sets it or nothing was said."""
    own = os.environ.get("CUDA_VISIBLE_DEVICES")
    if options.executor == "slurm" or not options.gpus:
        return None if options.executor == "slurm" else own
    first, count = worker * options.gpus, options.gpus
    ids = own.split(",") if own else [str(i) for i in range(options.workers * count)]
    if len(ids) < options.workers * count:
        allowed = f"CUDA_VISIBLE_DEVICES has {len(ids)} for {options.workers} workers"
        raise InputError("--gpus", count, allowed)
    return ",".join(ids[first : first + count])


def own_cores(options: argparse.Namespace, worker: int) -> list[int] | None:
    """The cores that a local worker keeps to; None where SLURM sees to it or there are too few.

    XLA has a thread for each core that it may use: workers that may all use all of them are in each
    other's way.
    """
    if options.executor == "slurm" or (options.cpus is None and not CAN_PIN):
        return None
    if not CAN_PIN:
        raise InputError("--cpus", options.cpus, "for local workers only on Linux")
    cores = sorted(os.sched_getaffinity(0))
    count, workers = len(cores), options.workers
    if options.cpus is None:
        share = cores[worker * count // workers : (worker + 1) * count // workers]
        return share if count >= workers else None
    if options.cpus * workers > count:
        raise InputError("--cpus", options.cpus, f"{count} cores for {workers} workers")
    return cores[worker * options.cpus : (worker + 1) * options.cpus]


def make_executor(options: argparse.Namespace, logs: Path, name: str):
    """The submitit executor.

    Raises:
        InputError: submitit or SLURM is not there.
    """
    try:
        import submitit
    except ImportError as error:
        allowed = "it needs submitit: pip install 'reprojax[launch]'"
        raise InputError("--executor", options.executor, allowed) from error
    if options.executor == "local":
        executor = submitit.LocalExecutor(folder=logs)
        executor.update_parameters(timeout_min=LOCAL_MINUTES)
        return executor
    try:
        executor = submitit.SlurmExecutor(folder=logs, max_num_timeout=REQUEUES)
    except RuntimeError as error:
        raise InputError("--executor", "slurm", "a machine with sbatch and srun") from error
    asked = {
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
        **{k: v for k, v in asked.items() if v is not None},
    )
    return executor


def submit(options: argparse.Namespace) -> list:
    """Starts the workers and says how to follow them; gives submitit's jobs."""
    name = check_study(options)
    workdir = Path(options.workdir or f"runs/{name}").absolute()
    # Beside the workdir, not in it: main claims an empty folder or one of its own.
    logs = Path(options.logs or f"{workdir}-logs").absolute()
    path, mark, scale = options.config.partition(":")
    command = [sys.executable, "-m", "reprojax.main"]
    command += [f"--config={Path(path).absolute()}{mark}{scale}", f"--workdir={workdir}"]
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
    print(f"stop:    {stop}   (saves; the same command goes on)", flush=True)
    return jobs


def wait(jobs: list) -> int:
    """Waits for the workers, says how each ended and gives the largest exit code."""
    codes = []
    for job in jobs:
        error = job.exception()
        found = re.findall(r"main ended with exit code (-?\d+)", str(error or ""))
        codes.append(0 if error is None else abs(int(found[-1])) if found else 1)
        print(f"{job.job_id}: exit code {codes[-1]}", flush=True)
    return max(codes)


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; gives the exit code."""
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
