"""The demo: draw a folder of screenshots and take it in, as a newcomer would. Run by `make demo`; leaves
its work in out/.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from draw import draw_folder

HERE = Path(__file__).parent
OUT = HERE / "out"


def celforge(*arguments: str) -> int:
    """Show a command, run it, and give its exit code."""
    print(f"\n$ celforge {' '.join(arguments)}", flush=True)
    program = Path(sys.executable).with_name("celforge")
    return subprocess.run([program, *arguments], cwd=OUT, check=False).returncode


def main() -> int:
    """Draw, take in, look."""
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    print("drawing 20 screenshots and four broken files", flush=True)
    draw_folder(OUT / "screenshots")
    celforge("init", ".")
    taken_in = celforge("ingest", "screenshots")
    celforge("status", "screenshots")
    print(
        f"\nThe pictures are in {OUT / 'screenshots'}; the four broken files were named and left where they are."
    )
    return 0 if taken_in == 3 else 1  # 3: finished, with failed items


if __name__ == "__main__":
    sys.exit(main())
