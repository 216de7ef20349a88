"""Code for CUDA is tested on machines without a GPU: on a fake one (fake_gpu.py)."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.skipif(torch.version.cuda is not None, reason="this build of torch has CUDA itself")
@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler is here")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_model_trains_on_a_fake_gpu_and_resumes_to_the_bit(precision):
    run_tests(str(HERE / "train" / "test_resume.py"), "-k", f"every_model and {precision}")


@pytest.mark.slow
@pytest.mark.skipif(torch.version.cuda is not None, reason="this build of torch has CUDA itself")
@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler is here")
def test_recorded_steps_give_the_same_bits_on_a_fake_gpu():
    run_tests(str(HERE / "system" / "test_graphs.py"))
    run_tests(str(HERE / "train" / "test_resume.py"), "-k", "every_setting and graphs")


def run_tests(*tests: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "fake_gpu", "-m", "slow or not slow", *tests]
    env = {**os.environ, "PYTHONPATH": str(HERE / "shared"), "DL_RUN_TEST_DEVICE": "cuda"}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
