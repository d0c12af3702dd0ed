"""Several processes that train one network: started on this machine or by torchrun, what they agree on, who writes."""
from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, contextmanager, redirect_stdout
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.multiprocessing.spawn import ProcessException

from nnmiss.errors import NnmissError

Value = TypeVar("Value")
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # torchrun sets them
PATIENCE = timedelta(hours=12)  # processes wait for one another after validating unequally many cases
SECONDS_TO_APPEAR = 180.0  # a network file system shows another machine's new file only after a while


def launched() -> bool:
    """Whether this process is one of several that torchrun (or whatever sets its variables) started."""
    return all(os.environ.get(name) for name in VARIABLES) and int(os.environ["WORLD_SIZE"]) > 1


def rank() -> int:
    """This process's number among all, over all machines; 0 alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def num_processes() -> int:
    """How many there are; 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def own_device(device: torch.device) -> torch.device:
    """The device of this process: on CUDA that of its number on its machine, which is not its number among all."""
    if device.type != "cuda":
        return device
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", rank())) % max(1, torch.cuda.device_count()))


@contextmanager
def joined(device: str):
    """While open, this process is one of the group that the variables of torchrun describe; only number 0 prints.

    Communicates through nccl between GPUs, through gloo between CPUs.

    Raises:
        NnmissError: another device, fewer GPUs on this machine than processes, or the group does not come about.
    """
    here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), torch.cuda.device_count()
    if device not in ("cuda", "cpu"):
        raise NnmissError(f"-device {device} trains in one process: use -device cuda or -device cpu for several")
    if device == "cuda":
        if here > max(1, gpus):
            raise NnmissError(f"{here} processes were started on this machine, which has {gpus} CUDA device(s): start one "
                              "process per GPU, or use -device cpu")
        torch.cuda.set_device(own_device(torch.device(device)))
    try:
        dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise NnmissError(f"the {os.environ['WORLD_SIZE']} processes did not find one another at "
                          f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}: {error}") from error
    with ExitStack() as stack:
        if rank():
            stack.enter_context(redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
        yield
    dist.destroy_process_group()  # not after an error: the others would be waited for


def start_here(function: Callable, arguments: tuple, count: int, device: str) -> None:
    """Runs function(*arguments) in `count` processes of this machine, joined to one group. Returns when all are done.

    Raises NnmissError for fewer GPUs than processes, and with the first failure of a process.
    """
    have = torch.cuda.device_count()
    if device == "cuda" and have < count:
        raise NnmissError(f"-num_gpus {count} needs as many CUDA devices, this machine has {have}")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    # each gets its share of the cores; a number that the user set is obeyed
    threads = 0 if "OMP_NUM_THREADS" in os.environ else max(1, (os.cpu_count() or 1) // count)
    context = mp.start_processes(_one_process, (count, port, threads, device, function, arguments), count, join=False)
    try:
        while not context.join():
            pass
    except ProcessException as error:
        _, found, message = str(error).partition(f"{NnmissError.__module__}.{NnmissError.__name__}: ")
        lines = str(error).strip().splitlines()
        raise NnmissError(message.strip() if found else f"a training process failed: {lines[-1]}") from error
    finally:  # after Ctrl-C or a request to terminate, which reaches this process alone
        for process in context.processes:
            process.terminate()
            process.join()


def _one_process(number: int, count: int, port: int, threads: int, device: str, function: Callable,
                 arguments: tuple) -> None:
    values = (number, count, number, "localhost", port)
    os.environ.update({name: str(value) for name, value in zip(VARIABLES, values)}, LOCAL_WORLD_SIZE=str(count))
    if threads:
        torch.set_num_threads(threads)
    with joined(device):
        function(*arguments)


# ---- what all processes agree on --------------------------------------------------------------------------------


def agreed(value: Value) -> Value:
    """What process 0 says, for a decision that depends on files: machines may see them at different times."""
    if num_processes() == 1:
        return value
    said = [value]
    dist.broadcast_object_list(said, 0)
    return said[0]


def first_alone(make: Callable[[], Value]) -> Value:
    """make() in process 0, then in the others, so that files that it writes are written once.

    What process 0 refuses with an NnmissError, all do.
    """
    own: list[Value] = []
    by_first(lambda: own.append(make()))
    return own[0] if own else make()


def by_first(make: Callable[[], Value]) -> Value:
    """make() in process 0 only; all have the result, which is pickled, or raise the NnmissError that it raised."""
    result, refusal = None, None
    if rank() == 0:
        try:
            result = make()
        except NnmissError as error:
            if num_processes() == 1:
                raise
            refusal = str(error)
    result, refusal = agreed((result, refusal))
    if refusal is not None:
        raise NnmissError(refusal)
    return result


def everyones(value: Value) -> list[Value]:
    """The values of all processes, by their number."""
    if num_processes() == 1:
        return [value]
    values: list = [None] * num_processes()
    dist.all_gather_object(values, value)
    return values


def anywhere(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set in any process."""
    if num_processes() == 1:
        return flag
    count = torch.tensor(float(flag), device=device)
    dist.all_reduce(count)
    return bool(count > 0)


def mean_of_all(value: Tensor, weight: float = 1.0) -> Tensor:
    """Mean over the processes of value times weight; gloo has no mean of its own."""
    if num_processes() == 1:
        return value
    total = value * weight
    dist.all_reduce(total)
    return total / num_processes()


def until_written(file: Path) -> None:
    """Waits until a file that process 0 has written can be seen here. Raises NnmissError when it cannot."""
    if num_processes() == 1:
        return
    dist.barrier()
    deadline = time.monotonic() + SECONDS_TO_APPEAR
    while not file.is_file():
        if time.monotonic() > deadline:
            raise NnmissError(f"{file}, which process 0 wrote, cannot be seen by process {rank()}: nnUNet_results must be "
                              "the same folder on all machines")
        time.sleep(0.5)
