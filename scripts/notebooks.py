"""Runs the Python examples of the documentation on a run.

python3 scripts/notebooks.py RUN
"""

import pathlib
import re
import sys


def main() -> None:
    run = sys.argv[1]
    root = pathlib.Path(__file__).parent.parent
    for page in ("docs/en/src/runs.md", "docs/zh/src/runs.md"):
        text = (root / page).read_text(encoding="utf-8")
        blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        if not blocks:
            sys.exit(f"{page}: no Python example")
        for block in blocks:
            print(f"== {page}: {block.splitlines()[0]}", flush=True)
            exec(compile(block, page, "exec"), {"run": run})


main()
