"""Tests and their helpers find each other, also in processes that the tests start."""

import os
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
os.environ["PYTHONPATH"] = os.pathsep.join([*sys.path[:2], str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
