"""Makes the helper modules of this folder importable, and keeps torch to one thread per test process."""
from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("nnUNet_n_proc_DA", "0")
sys.path.insert(0, str(Path(__file__).parent))

from tiny_dataset import session_folders, tiny  # noqa: F401 (fixtures)
