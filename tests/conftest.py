"""Makes the modules of this folder that tests share importable, and keeps torch to one thread per test process."""
from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("nnUNet_n_proc_DA", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; two spinning threads on busy cores crawl
sys.path.insert(0, str(Path(__file__).parent))

from tiny_dataset import session_folders, tiny  # noqa: F401 (fixtures)
