"""A program in the place of an agent: answers with a report of what stands below the line SAY, else of the last line."""

import json
import sys
from pathlib import Path

prompt, output = map(Path, sys.argv[1:3])
text = prompt.read_text()
said = text.split("SAY\n")[1].strip() if "SAY\n" in text else f"Heard: {text.strip().splitlines()[-1]}"
report = {"status": "succeeded", "summary": said, "files_read": [], "files_written": [], "artifacts": []}
output.write_text(json.dumps(report))
