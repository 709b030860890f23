"""Runs the Python examples of the documentation on a run.

python3 scripts/notebooks.py RUN

Examples that read Parquet are left out if the run has none. Compressed requests are read instead of
plain ones if the run has them.
"""

import pathlib
import re
import sys


def main() -> None:
    run = sys.argv[1]
    folder = pathlib.Path(run)
    is_compressed = (folder / "requests.jsonl.zst").exists()
    has_parquet = (folder / "requests.parquet").exists()
    root = pathlib.Path(__file__).parent.parent
    for page in ("docs/en/src/runs.md", "docs/zh/src/runs.md"):
        text = (root / page).read_text(encoding="utf-8")
        blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        if not blocks:
            sys.exit(f"{page}: no Python example")
        for block in blocks:
            if ".parquet" in block and not has_parquet:
                continue
            if is_compressed:
                block = block.replace("/requests.jsonl", "/requests.jsonl.zst")
            print(f"== {page}: {block.splitlines()[0]}", flush=True)
            exec(compile(block, page, "exec"), {"run": run})


main()
