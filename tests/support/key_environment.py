"""A Harbor environment for tests that tells which key its worker was given."""

import os
from pathlib import Path

from temp_environment import TempEnvironment


class KeyEnvironment(TempEnvironment):
    """``environment.import_path = "key_environment:KeyEnvironment"``: writes the key to where ``where.txt`` says."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        key = os.environ.get("OPENROUTER_API_KEY", "")
        Path((self.environment_dir / "where.txt").read_text()).write_text(key)
        print(f"key {key}", flush=True)
