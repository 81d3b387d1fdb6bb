"""Walks through steps with NVIDIA's own Python bindings (nvidia-ml-py) and says where they disagree.

Usage: pynvml_check.py STEPS.json CTL

BERTH_FAKE_NVML names the state file, LD_LIBRARY_PATH the folder with libnvidia-ml.so.1, CTL is fake-nvml-ctl. A step is
  {"ctl": ["xid", "2", "79"]}                                  the machine changes
  {"call": NAME, WHO?, "args": [...], "at": PATH?, "is": X}    a call returns X (at PATH within what it returns)
  {"call": NAME, WHO?, ..., "raises": "GPU_IS_LOST"}           a call fails
WHO is one of "gpu": INDEX, "mig": [INDEX, MIG INDEX], "set": true (the event set), or nothing. Handles are kept, so that a
step can use one that has become stale; "anew": true asks for another. An argument {"gpu": INDEX} or {"set": true} is a handle too,
{"const": NAME} a constant of the bindings. X may be {"file": PATH}: what the state file says there.
"""

import ctypes
import json
import os
import subprocess
import sys

import pynvml

handles = {}


def handle(who, anew=False):
    key = json.dumps(who)
    if anew or key not in handles:
        if "gpu" in who:
            handles[key] = pynvml.nvmlDeviceGetHandleByIndex(who["gpu"])
        elif "mig" in who:
            index, position = who["mig"]
            handles[key] = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle({"gpu": index}), position)
        else:
            handles[key] = pynvml.nvmlEventSetCreate()
    return handles[key]


def argument(value):
    if isinstance(value, dict):
        return getattr(pynvml, value["const"]) if "const" in value else handle(value)
    return value


def walk(value, path):
    for part in path.split(".") if path else []:
        if isinstance(value, dict):
            value = value[part]
        elif part.isdigit():
            value = value[int(part)]
        else:
            value = getattr(value, part)
    return value


def plain(value):
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, ctypes.Array) or isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, ctypes._SimpleCData):
        return value.value
    return value


def run(step, ctl):
    if "ctl" in step:
        subprocess.run([ctl] + step["ctl"], check=True, stdout=subprocess.DEVNULL)
        return None
    who = {key: step[key] for key in ("gpu", "mig", "set") if key in step}
    try:
        first = [handle(who, step.get("anew", False))] if who else []
        result = getattr(pynvml, step["call"])(*first, *[argument(value) for value in step.get("args", [])])
    except pynvml.NVMLError as error:
        name = next(key for key, value in vars(pynvml).items() if key.startswith("NVML_ERROR_") and value == error.value)
        name = name.removeprefix("NVML_ERROR_")
        return None if name == step.get("raises") else "raises %s" % name
    except Exception as error:  # the bindings' own trouble with an answer
        return "breaks: %r" % error
    if "raises" in step:
        return "raises nothing"
    if "is" not in step:
        return None
    expected = step["is"]
    if isinstance(expected, dict):
        with open(os.environ["BERTH_FAKE_NVML"]) as state:
            expected = walk(json.load(state), expected["file"])
    found = plain(walk(result, step.get("at", "")))
    return None if found == expected else "is %r" % (found,)


def main(steps, ctl):
    with open(steps) as file:
        steps = json.load(file)
    wrong = 0
    for number, step in enumerate(steps):
        why = run(step, ctl)
        if why:
            wrong += 1
            print("step %d %s: %s" % (number, json.dumps(step), why))
    print("%d steps, %d wrong, nvidia-ml-py" % (len(steps), wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
