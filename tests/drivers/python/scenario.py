"""What the Python scenarios share: named checks, each with a limit, one line of output for each.

The environment names the server (PGHOST, ...); DRIVERS_WAY says whether it is PostgreSQL itself.
"""

import asyncio
import inspect
import os
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

CLIENTS = 12
LIMIT = 20
DIRECT = os.environ["DRIVERS_WAY"] == "direct"

_checks = []


def check(function):
    """Makes a function, which may be async, a check of its name."""
    _checks.append(function)
    return function


def main():
    """Makes all checks, or those named on the command line, and ends the program."""
    wanted = [c for c in _checks if c.__name__ in sys.argv[1:] or not sys.argv[1:]]
    outcomes = [_say(function) for function in wanted]
    print(f"1..{len(outcomes)}", flush=True)
    # A check that hangs has left a thread behind.
    os._exit(0 if all(outcomes) else 1)


def _say(function):
    why = _outcome(function)
    name = function.__name__
    print(f"not ok {name} - {why}" if why else f"ok {name}", flush=True)
    return not why


def _outcome(function):
    outcome = []

    def run():
        try:
            if inspect.iscoroutinefunction(function):
                asyncio.run(asyncio.wait_for(function(), LIMIT))
            else:
                function()
            outcome.append(None)
        except BaseException as error:  # whatever it is, the check has failed
            outcome.append(_describe(error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(LIMIT + 1)
    return outcome[0] if outcome else f"not done within {LIMIT} s"


def _describe(error):
    frames = traceback.extract_tb(error.__traceback__)
    lines = [str(frame.lineno) for frame in frames if frame.filename == sys.argv[0]]
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text} (line {', '.join(lines)})"


def same(found, expected):
    """Fails unless both are equal."""
    if found != expected:
        raise AssertionError(f"{found!r} is not {expected!r}"[:280])


@contextmanager
def raises(*kinds):
    """Fails unless the body raises one of these."""
    try:
        yield
    except kinds:
        return
    raise AssertionError(f"no {' or '.join(kind.__name__ for kind in kinds)}")


def eventually(what, condition):
    """Waits until the condition holds."""
    deadline = time.monotonic() + LIMIT - 1
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"never: {what}")
        time.sleep(0.01)


async def eventually_async(what, condition):
    """Waits until the condition, a coroutine function, holds."""
    deadline = time.monotonic() + LIMIT - 1
    while not await condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"never: {what}")
        await asyncio.sleep(0.01)


def together(client, clients=CLIENTS):
    """Runs `client(number)` for many clients at once, in threads."""
    with ThreadPoolExecutor(clients) as executor:
        for _ in executor.map(client, range(clients)):
            pass


async def together_async(client, clients=CLIENTS):
    """Runs the coroutine `client(number)` for many clients at once."""
    await asyncio.gather(*(client(number) for number in range(clients)))
