"""Make docs/results.md and its plots again from the records in docs/results.

    python examples/experiments/results.py [--records docs/results] [--docs docs]

Needs radio-dspy[report].
"""

from __future__ import annotations

import argparse
from pathlib import Path

from results_page import write_results

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent.parent / "docs"


def shipped() -> list[Path]:
    """The experiments' files in the order of their numbers."""
    return sorted(HERE.glob("*.yaml"), key=lambda path: int(path.name.partition("-")[0]))


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, default=DOCS / "results")
    parser.add_argument("--docs", type=Path, default=DOCS)
    options = parser.parse_args()
    for path in write_results(shipped(), options.records, options.docs):
        print(path)


if __name__ == "__main__":
    main()
