"""``python -m parallelhassnes``: the same program as ``parallelhassnes``."""

from parallelhassnes.cli.app import main

if __name__ == "__main__":
    main()
