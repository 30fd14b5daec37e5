"""``python -m jobledger``: the command line."""

from .controller.cli import main

if __name__ == "__main__":
    main()
