"""``python -m radio_dspy.cli``."""

from radio_dspy.cli import main

if __name__ == "__main__":
    main()
